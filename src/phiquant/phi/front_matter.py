"""The front matter of a model's README.md: what stands between its first two lines of `---`.

The card may be anyone's and of any length. Its beginning is read, and one that cannot be read says
nothing: no model is refused for its card.
"""

from pathlib import Path

from phiquant.errors import InputError
from phiquant.host import foreign

CARD = "README.md"
LONGEST = 1 << 16
"""Bytes of a card among which its front matter ends."""
LINE = "---"


def front_matter(directory: Path) -> str:
    """The text between the two lines; empty if there is none."""
    path = directory / CARD
    if not foreign.present(path):
        return ""
    try:
        with foreign.opened(path, foreign.CARD, directory) as file:
            head = file.read(LONGEST).decode(errors="replace")
    except InputError:
        return ""
    lines = [line.rstrip() for line in head.split("\n")]
    if lines[0] != LINE or LINE not in lines[1:]:
        return ""
    return "\n".join(lines[1 : lines.index(LINE, 1)])
