"""Pages of results say what the JSON files beside them keep, in tables of one form."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
KEPT = sorted(RESULTS.rglob("*.json"))
LINES = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", "") or ""):
            del sys.modules[name]


def name_of(path: Path) -> str:
    return str(path.relative_to(RESULTS).with_suffix(""))


@pytest.mark.parametrize("path", KEPT, ids=name_of)
def test_a_committed_page_is_rendered_from_its_json(path):
    """By the benchmark of that name, which wrote both."""
    document = json.loads(path.read_text(encoding="utf-8"))
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert import_module(path.stem).markdown(document) == page


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.md")), ids=name_of)
def test_a_committed_table_has_the_form_that_the_writer_gives_it(path):
    from tables import Table

    tables = LINES.findall(path.read_text(encoding="utf-8"))
    assert tables
    for text in tables:
        titles, rules, *rows = (
            tuple(cell.strip() for cell in line[1:-1].split("|")) for line in text.splitlines()
        )
        marks = {"---": "", "---:": ":"}
        marked = (title + marks[rule] for title, rule in zip(titles, rules, strict=True))
        assert Table(tuple(marked)).text(rows) + "\n" == text


def test_a_table():
    from tables import Table

    table = Table(("", "ours:", "verdict"))
    assert table.text([("wall", "", "pass"), ("disk", "1 GB", "FAIL")]) == (
        "| | ours | verdict |\n| --- | ---: | --- |\n| wall |  | pass |\n| disk | 1 GB | FAIL |"
    )


@pytest.mark.parametrize(
    ("figure", "below", "passed", "verdict"),
    [
        (0.5, False, True, "pass"),
        (0.5, True, False, "FAIL"),
        (0.6, False, False, "FAIL"),
        (None, False, None, "not run"),
    ],
)
def test_a_figure_beside_its_bar(figure, below, passed, verdict):
    from tables import Bar, judged, judged_row

    row = judged("wall", "1 s", "2 s", (figure, "half"), Bar(0.5, below))
    assert (row.passed, row.verdict) == (passed, verdict)
    assert row.cells == ("wall", "1 s", "2 s", "half", "< 0.5" if below else "≤ 0.5", verdict)
    assert judged_row(json.loads(json.dumps(row.record))) == row


def test_a_forecast_is_held_to_what_was_measured():
    from device_memory import memory_row
    from job_memory import job_row

    job = {"checkpoint": "tied", "targets": "gguf", "forecast": 0, "measured": 100_000_000}
    verdicts = [job_row({**job, "forecast": size}).verdict for size in (99e6, 100e6, 130e6, 131e6)]
    assert verdicts == ["FAIL", "pass", "pass", "FAIL"]
    run = {"model": "m", "target": "gguf", "type": "Q4_0", "context": 512, "prompt": 128}
    sizes = (84e6, 86e6, 114e6, 116e6)
    rows = [memory_row({**run, "predicted": size, "measured": 100e6}) for size in sizes]
    assert [row.verdict for row in rows] == ["FAIL", "pass", "pass", "FAIL"]
    assert rows[1].record["ratio"] == 0.86
