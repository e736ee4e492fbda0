"""What an artifact lost, measured in its own runtime over the held-out text.

The runtimes are the stock ones, through the same runners that `phiquant verify` uses, whoever made
the artifact. Where a runtime is too slow for a whole text (MLX on a processor), and for bare
weights, the reference forward runs over the weights as they decode; both sides of a comparison
are always measured in the same way.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from phiquant.evaluation.figures import measure
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.size import measure_size
from phiquant.evaluation.text import read_text
from phiquant.evaluation.truth import ReferenceFigures, hidden_states
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Floats, WeightSource
from phiquant.targets.table import target

HELD_OUT = Path(__file__).parent / "texts" / "held-out.txt"
WINDOW = 256
FIGURES = "figures.json"
DECODED = "the reference forward over the decoded weights"


@dataclass(frozen=True, slots=True)
class Loss:
    """Divergences in nats a token, each with its standard error; bytes of tensor data."""

    mean: float
    mean_error: float
    quantile_999: float
    quantile_999_error: float
    top1: float
    top1_error: float
    nbytes: int
    types: str
    """How many weights are stored in which way: "4.5 bits a weight ..." in the target's names."""
    measured_in: str
    text: str
    """SHA-256 of the text, and how much of it."""


def truth_of(checkpoint: Path, windows: int) -> ReferenceFigures:
    """What the FP32 reference says of the first windows of the held-out text."""
    return ReferenceFigures.measure(checkpoint, Settings(read_text(HELD_OUT), WINDOW, windows))


def kept(directory: Path, truth: ReferenceFigures, anew: Callable[[], Loss]) -> Loss:
    """The loss recorded beside an artifact, if it is of this text; else `anew`'s, recorded."""
    file = directory / FIGURES
    if file.is_file():
        loss = Loss(**json.loads(file.read_text()))
        if loss.text == text_of(truth):
            return loss
    loss = anew()
    file.write_text(json.dumps(asdict(loss), indent=2) + "\n")
    return loss


def loss_of_artifact(path: Path, name: str, truth: ReferenceFigures) -> Loss:
    """An artifact of the target called `name`, in its runtime."""
    place = target(name)
    artifact = place.open(path)
    stored: dict[str, int] = {}
    for entry in artifact.entries():
        if len(entry.shape) > 1:
            stored[entry.type] = stored.get(entry.type, 0) + entry.nbytes
    size = measure_size(path, artifact, truth.checkpoint.architecture).tensors
    with place.runner(path) as runner:
        if runner.slow:
            where, logits = DECODED, of_weights(artifact, truth)
        else:
            where = runner.runtime
            logits = (runner.logits(window) for window in truth.windows)
        return loss(truth, logits, size, described(stored), where)


def loss_of_weights(source: WeightSource, size: int, types: str, truth: ReferenceFigures) -> Loss:
    """Bare weights, by the reference forward."""
    return loss(truth, of_weights(source, truth), size, types, DECODED)


def of_weights(source: WeightSource, truth: ReferenceFigures) -> Iterator[Floats]:
    decoded = Reference(source, resident=True)
    return (decoded.head(hidden) for hidden in hidden_states(decoded, truth.windows))


def loss(
    truth: ReferenceFigures, logits: Iterator[Floats], size: int, types: str, where: str
) -> Loss:
    figures = measure(truth, logits, ()).figures
    return Loss(
        mean=figures.mean.value,
        mean_error=figures.mean.error,
        quantile_999=figures.quantile_999.value,
        quantile_999_error=figures.quantile_999.error,
        top1=figures.top1_agreement.value,
        top1_error=figures.top1_agreement.error,
        nbytes=size,
        types=types,
        measured_in=where,
        text=text_of(truth),
    )


def text_of(truth: ReferenceFigures) -> str:
    sample = truth.sample
    return f"{sample.sha256[:12]}, {sample.windows} x {sample.window}"


def described(stored: dict[str, int]) -> str:
    """The types of the matrices, those with the most bytes first."""
    most = sorted(stored, key=stored.__getitem__, reverse=True)
    return ", ".join(f"{kind} {stored[kind] / 1e6:.1f} MB" for kind in most)


@dataclass(frozen=True, slots=True)
class Patched:
    """A source whose weights are replaced where `rounded`, or else `over`, has them."""

    under: WeightSource
    over: dict[str, Floats]
    rounded: dict[str, Floats]

    @property
    def architecture(self) -> Architecture:
        return self.under.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        for held in (self.rounded, self.over):
            if name in held:
                return held[name][first:last]
        return self.under.weight(name, first, last)


def rounded_by_autoround(path: Path, ours: WeightSource, checkpoint: Checkpoint) -> Patched:
    """AutoRound's layers in the checkpoint; embedding, head and the norm before it are ours.

    The norm goes with the head: its gains took what the head's columns were divided by.
    """
    from safetensors.numpy import load_file

    names = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    shared = {name: ours.weight(name) for name in names}
    return Patched(checkpoint, shared, dict(load_file(path / "weights.safetensors")))
