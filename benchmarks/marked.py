"""Parts of pages that a command fills with what it prints.

A part begins with a line that says what belongs there, `<!-- words -->`, and ends with the line
`<!-- end -->`. Everything else is written by hand and left alone.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PART = re.compile(r"^<!-- (?!end -->)(.+?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


Content = Callable[[str], str | None]
"""What belongs in the part that begins with some words; None for a part of another command."""


def filled(page: str, content: Content) -> str:
    """The page's text with every marked part as `content` of its words has it."""

    def fill(part: re.Match[str]) -> str:
        words = part[1]
        text = content(words)
        return part[0] if text is None else f"<!-- {words} -->\n\n{text}\n\n<!-- end -->"

    return PART.sub(fill, page)


def bring_up_to_date(pages: Mapping[Path, Content], check: bool) -> bool:
    """Fill each page's marked parts by its content; whether any was not as it had to be.

    With `check`, nothing is written.
    """
    stale = []
    for path, content in pages.items():
        page = path.read_text(encoding="utf-8")
        new = filled(page, content)
        if new == page:
            continue
        stale.append(path.name if path.name != "README.md" else str(Path(*path.parts[-2:])))
        if not check:
            path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return bool(stale)


def run(
    description: str | None,
    pages: Mapping[Path, Callable[[str], str]],
    draw: Callable[[], None] = lambda: None,
) -> None:
    """The command of a script that fills pages and draws their pictures; `--check` writes nothing.

    With `--check`, it ends with 1 where a page is not as it has to be.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    stale = bring_up_to_date(pages, given.check)
    if not given.check:
        draw()
    sys.exit(1 if given.check and stale else 0)
