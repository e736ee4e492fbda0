"""JSON and TOML that are sound are read as ever; what nothing could work with is refused."""

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.host import strict_json
from phiquant.host.strict_json import parse_json, parse_toml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
@settings(deadline=None)
def test_sound_json_is_read_as_the_standard_library_reads_it(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == json.loads(text) == value


@pytest.mark.parametrize(
    "text, words",
    [
        ("[NaN]", "NaN is no number"),
        ("Infinity", "Infinity is no number"),
        ("1e400", "1e400 is beyond"),
        ("-1e400", "-1e400 is beyond"),
        ("9" * 65, "64 digits"),
        ("-" + "9" * 64, "64 digits"),
        ("0." + "1" * 2000, "beyond"),
        ('{"a": 1, "b": 2, "a": 3}', "the key a is given twice"),
        ('{"x": {"": 1, "": 1}}', "given twice"),
        ('"\\ud800"', "surrogate"),
        ('["a", {"\\udc00": 1}]', "surrogate"),
        ("[" * 65 + "]" * 65, "64 deep"),
        ("[" * 200_000, "64 deep"),
        ("", "Expecting value"),
        ("\ufeff1", "BOM"),
    ],
)
def test_what_is_refused_in_json(text, words):
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_the_limits_themselves_are_taken():
    assert parse_json("[" * 64 + "]" * 64)
    assert parse_json("9" * 64) == int("9" * 64)
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json("1000000000000000019884624838656") == 1000000000000000019884624838656


def test_a_document_that_would_take_too_much_memory(monkeypatch):
    text = json.dumps({str(number): [number, "a"] for number in range(1000)})
    assert len(parse_json(text)) == 1000
    monkeypatch.setattr(strict_json, "MOST_MEMORY", 1 << 18)
    with pytest.raises(ValueError, match="MiB of memory"):
        parse_json(text)


def test_sound_toml_is_read_as_the_standard_library_reads_it():
    text = 'a = [1, 2.5, "x"]\n[b.c]\nd = {e = true}\n[[f]]\ng = 1979-05-27\n'
    assert parse_toml(text) == tomllib.loads(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("a = nan", "nan is no number"),
        ("a = [{b = inf}]", "inf is no number"),
        ("a = 1e999", "inf is no number"),
        ("a = " + "9" * 65, "64 digits"),
        ("a = " + "9" * 5000, "digits"),
        ("a = " + "[" * 65 + "]" * 65, "64 deep"),
        ("a = " + "[" * 50_000, "64 deep"),
        ("a." * 65 + "a = 1", "64 dots"),
        ("a = 1\na = 1", "overwrite"),
        ("a", "Expected"),
    ],
)
def test_what_is_refused_in_toml(text, words):
    with pytest.raises(ValueError, match=words):
        parse_toml(text)
