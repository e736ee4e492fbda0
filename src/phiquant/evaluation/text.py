"""The text that figures are measured over, and how it is cut into windows.

The package ships one text, `texts/mixed.txt`: English prose and dialogue, some German, French
and Spanish, code in several languages, tables, sums and lists, so that a short stretch of it
exercises much of a vocabulary. It was written for this project and is under its licence, so no
model has it in its training data by heart. `texts/README.md` records its hash.

Windows do not overlap, and every token of a window but the last predicts its successor. The
first tokens of a window therefore count too, though they are predicted from little context:
perplexities come out higher than with a sliding window, equally for reference and artifact.
"""

from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path

import numpy as np

from phiquant.errors import InputError
from phiquant.host import foreign
from phiquant.host.kinds import WORD
from phiquant.phi.weights import Tokens

SHIPPED = "mixed.txt"


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """A text by name, in full; the hash tells whether two figures are of the same one."""

    name: str
    content: str

    def __post_init__(self) -> None:
        WORD.check(name=self.name, content=self.content)

    @property
    def sha256(self) -> str:
        """SHA-256 of the text's UTF-8 bytes."""
        return sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EvaluationSample:
    """How much of which text was measured."""

    text: str
    sha256: str
    window: int
    """Tokens in a window."""
    windows: int
    positions: int
    """Predictions that were compared, over all windows."""

    def as_json(self) -> dict[str, str | int]:
        """The sample as it is recorded."""
        return asdict(self)


def shipped_text() -> EvaluationText:
    """The text that comes with the package."""
    place = resources.files("phiquant.evaluation") / "texts" / SHIPPED
    return EvaluationText(f"phiquant {SHIPPED}", place.read_text(encoding="utf-8"))


def read_text(path: Path) -> EvaluationText:
    """A user's own text, with plain line ends; InputError if it is not UTF-8."""
    text = foreign.read_text(path, foreign.TEXT)
    return EvaluationText(path.name, text.replace("\r\n", "\n").replace("\r", "\n"))


def cut(tokens: list[int], window: int, windows: int | None) -> tuple[Tokens, ...]:
    """The first `windows` (None for all) whole windows of `window` tokens.

    A text shorter than one window is one short window. Raises InputError where there is nothing
    to predict.
    """
    if window < 2:
        raise InputError(f"a window needs at least 2 tokens, got {window}")
    if windows is not None and windows < 1:
        raise InputError(f"expected at least one window, got {windows}")
    if len(tokens) < 2:
        raise InputError(f"the text has {len(tokens)} tokens; at least 2 are needed to measure")
    window = min(window, len(tokens))
    count = len(tokens) // window
    whole = np.array(tokens[: count * window], np.int32).reshape(count, window)
    return tuple(whole[:windows])
