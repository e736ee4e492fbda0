"""Tables of results: how a page shows them, and what the JSON file beside the page keeps.

A benchmark keeps a record of every line, plain values as JSON has them, and makes a `Row` of every
record. So a page can be rendered from its JSON file alone by the functions that wrote it first, and
a test does so with the committed results.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = {None: "not run", True: "pass", False: "FAIL"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: its cells, what JSON keeps of it, and whether it meets its bar.

    `passed` is None where there is no bar, or nothing was measured.
    """

    cells: tuple[str, ...]
    record: Mapping[str, Any]
    passed: bool | None = None

    @property
    def verdict(self) -> str:
        return VERDICTS[self.passed]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of Markdown by the titles of its columns.

    A title that ends in ":" is that of a column of figures, which stand at the right.
    """

    titles: tuple[str, ...]

    @property
    def head(self) -> str:
        titles = line(title.removesuffix(":") for title in self.titles)
        rules = line("---:" if title.endswith(":") else "---" for title in self.titles)
        return f"{titles.replace('|  |', '| |')}\n{rules}"

    def text(self, rows: Iterable[Sequence[str]]) -> str:
        """The table of these rows of cells."""
        return "\n".join([self.head, *map(line, rows)])


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def page(parts: Iterable[str]) -> str:
    """A page of headings, paragraphs and tables."""
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class Bar:
    """The greatest allowed figure; with `below`, it is itself a miss. `words` say it, if given."""

    limit: float
    below: bool = False
    words: str = ""

    @property
    def text(self) -> str:
        return self.words or f"{'<' if self.below else '≤'} {self.limit:g}"

    def met_by(self, figure: float | None) -> bool | None:
        """Whether a figure meets the bar; None for none."""
        if figure is None:
            return None
        return figure < self.limit if self.below else figure <= self.limit


VERDICT = Table(("", "ours:", "peer:", "figure:", "bar:", ""))


def judged(what: str, ours: str, theirs: str, figure: tuple[float | None, str], bar: Bar) -> Row:
    """A row of VERDICT: what is measured, ours and the peer's, the figure also in words, its bar.

    A figure of None was not measured.
    """
    value, text = figure
    return judged_row(
        {
            "what": what,
            "ours": ours,
            "theirs": theirs,
            "value": value,
            "bar": bar.limit,
            "value_text": text,
            "bar_text": bar.text,
            "below": bar.below,
            "passed": bar.met_by(value),
        }
    )


def judged_row(record: Mapping[str, Any]) -> Row:
    """The row of VERDICT that `record` was kept of."""
    names = ("what", "ours", "theirs", "value_text", "bar_text")
    passed = record["passed"]
    return Row((*(record[name] for name in names), VERDICTS[passed]), record, passed)


def verdict_table(records: Iterable[Mapping[str, Any]]) -> str:
    """The table of figures beside their bars."""
    return VERDICT.text(judged_row(record).cells for record in records)
