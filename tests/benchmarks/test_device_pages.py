"""The pages on devices say what the tool says today."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    import device_pages

    yield device_pages
    for name in ("device_pages", "marked", "tables"):
        sys.modules.pop(name, None)


def filled(page: str, pages) -> str:
    from marked import filled

    return filled(page, pages.content)


def test_the_committed_pages_are_what_the_command_writes(pages):
    from marked import PART

    for name in pages.PAGES:
        page = (pages.ROOT / name).read_text(encoding="utf-8")
        assert PART.search(page), name
        assert page.count("<!-- end -->") == len(PART.findall(page)), name
        assert filled(page, pages) == page, f"{name}: run python benchmarks/device_pages.py"


def test_only_what_is_marked_is_written(pages):
    page = "before\n<!-- choices phi-4 --device rtx-4090 -->\nold\n<!-- end -->\nafter\n"
    new = filled(page, pages)
    assert new.startswith("before\n<!-- choices phi-4 --device rtx-4090 -->\n\n| `--device`")
    assert new.endswith("|\n\n<!-- end -->\nafter\n")
    assert "| `rtx-4090` | GeForce RTX 4090" in new
    assert "old" not in new
    assert filled(new, pages) == new
    assert filled("no mark | `rtx-4090` |", pages) == "no mark | `rtx-4090` |"


def test_a_device_for_which_there_is_nothing(pages):
    assert "nothing; another Phi" in pages.choices("phi-4 --device rtx-4060-8gb")
