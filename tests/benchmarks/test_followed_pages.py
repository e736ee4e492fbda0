"""The pages that follow weights through the kernels say what the kernels do today."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
NAMES = ("follow_search", "follow_feedback")


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in (*NAMES, "marked", "tables"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name", [pytest.param("follow_search", marks=pytest.mark.long), "follow_feedback"]
)
def test_a_committed_page_is_what_the_command_writes(name):
    from marked import PART, filled

    followed = import_module(name)
    page = followed.PAGE.read_text(encoding="utf-8")
    assert len(PART.findall(page)) == page.count("<!-- end -->") >= 5
    assert filled(page, followed.content) == page, f"run python benchmarks/{name}.py"
    assert followed.PICTURE.exists()
