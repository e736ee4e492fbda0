"""Printing results to stdout, as wide as the terminal, or 100 columns when piped.

What is printed may come from files by other hands: names are not markup, and control characters
in them do not reach the terminal.
"""

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\n\t"
}


def harmless(text: str) -> str:
    """`text` without characters that steer a terminal."""
    return text.translate(CONTROLS)


def out_as_is(text: str) -> None:
    """Print lines that are to be copied, or that are laid out already: none is broken."""
    if sys.stdout is not None:
        sys.stdout.write(harmless(text) + "\n")


def out(what: "RenderableType") -> None:
    """Print one renderable to stdout."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    if sys.stdout is None:
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    if isinstance(what, str):
        what = console.render_str(what)
    pieces = (
        Segment(harmless(text), style, control) for text, style, control in console.render(what)
    )
    with console.capture() as captured:  # rich would end the process at a broken pipe
        console.print(Segments(pieces), end="")
    sys.stdout.write(captured.get())
