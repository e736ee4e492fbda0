"""The demonstration's table: whole, or a line at a time while its rows are still being measured."""

from collections.abc import Iterable

from rich.table import Table

from phiquant.demo.demonstration import Row, by_precision
from phiquant.evaluation.bootstrap import Estimate

COLUMNS = (
    ("runtime", 9),
    ("precision", 10),
    ("type", 18),
    ("MB", 7),
    ("bits", 6),
    ("KL divergence", 17),
    ("top-1", 8),
    ("tokens/s", 9),
)
"""Names, and widths where each line is printed by itself. Words are on the left, numbers on the
right."""
WORDS = 3
"""Columns of words."""


def table(rows: Iterable[Row]) -> Table:
    """All of `rows`, sorted by precision."""
    shown = Table(*(name for name, _ in COLUMNS))
    for column in shown.columns[WORDS:]:
        column.justify = "right"
    for row in by_precision(rows):
        shown.add_row(*cells(row))
    return shown


def heading() -> str:
    """The names above `line`s."""
    return _spaced([name for name, _ in COLUMNS])


def line(row: Row) -> str:
    """One row of the table by itself."""
    return _spaced(cells(row))


def _spaced(words: Iterable[str]) -> str:
    spaced = [
        f"{word:<{width}}" if at < WORDS else f"{word:>{width}}"
        for at, (word, (_, width)) in enumerate(zip(words, COLUMNS, strict=True))
    ]
    return " ".join(spaced).rstrip()


def cells(row: Row) -> tuple[str, ...]:
    """The words of a row."""
    plan, verification = row.made.plan, row.verification
    known = (
        plan.target,
        row.precision.upper(),
        plan.type,
        f"{plan.nbytes / 1e6:.1f}",
        f"{plan.bits_per_weight:.2f}",
    )
    if verification is None:
        return (*known, "not installed", "", "")
    figures, answer = verification.figures, verification.answer
    if figures is None or answer is None:
        return (*known, "does not run", "", "")
    return (
        *known,
        short(figures.mean),
        f"{100 * figures.top1_agreement.value:.1f} %",
        f"{answer.tokens_per_second:.1f}",
    )


def short(figure: Estimate) -> str:
    """Two digits of the figure and one of its standard error, to fit a table's cell."""
    return f"{figure.value:.2g} ± {figure.error:.1g}" if figure.value else "0"
