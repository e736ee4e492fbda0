"""Fields of the library in messages become the options that a person would type."""

import pytest

from phiquant.cli.wording import in_options


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("leave out `type`", "leave out --type"),
        ("with `precision=fp16`", "with --precision fp16"),
        ("`embedding=8` is for cpu", "--option embedding=8 is for cpu"),
        ("give `embedding`", "give --option embedding"),
        ("a `word` of its own", "a `word` of its own"),
    ],
)
def test_a_field_with_and_without_a_value(message, told):
    assert in_options(message) == told
