"""The pages that people read: every link leads somewhere, and each page answers its question."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLACES = ("*.md", "docs/*.md", "benchmarks/**/*.md", "src/phiquant/**/*.md")
PAGES = sorted(page for place in PLACES for page in ROOT.glob(place))
LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"https?:|mailto:")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(prose(page)):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.stem)
def test_a_page_asks_a_question_and_opens_with_a_sentence(page):
    title, blank, opening = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert title.endswith("?")
    assert not blank
    assert re.match(r"[A-Z`]", opening), opening
    assert not opening.startswith("```")
