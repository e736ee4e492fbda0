"""One pass of a sample through the original: what every target's decisions may rest on.

`inputs` holds the mean and the mean square of every input channel of every matrix, by which
rounding weighs its errors. A tied embedding counts as the head that it also is; an embedding of
its own has no input channels and no entry. `sensitivities` holds what rounding each matrix does to
the output, where that is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from phiquant.calibration.anchor import Anchor
from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.sensitivity import Sensitivity, sampled_rows, squared_error
from phiquant.calibration.wavefront import Wavefront, work
from phiquant.phi.architecture import Architecture
from phiquant.phi.fused import matrices
from phiquant.phi.weights import Tokens, WeightSource
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.inputs import Inputs

ANCHOR = Anchor(4)

STATES = 3 << 29
"""Bytes that the variants' hidden states may take."""

LARGE = 1 << 30
"""Weights of a model for which half the sample must do."""

WINDOW = 128
"""Tokens in a window of the sample by which sensitivities are measured."""


@dataclass(frozen=True)
class Analysis:
    """What a sample says about a model, by the checkpoint's names."""

    inputs: Mapping[str, Inputs]
    """What the matrix's inputs are like."""
    sensitivities: Mapping[str, Sensitivity] = field(default_factory=dict)
    """Of every matrix, those of fused weights under names of their own (`phi.fused`); empty where
    they were not measured."""


def analyse(
    source: WeightSource,
    windows: Sequence[Tokens],
    on_progress: OnProgress = ignore,
    *,
    sensitivities: bool = False,
) -> Analysis:
    """Pass `windows` of tokens through the network of `source` together.

    With `sensitivities`, variants with one matrix rounded ride along, one a matrix: see
    `wavefront`, also for the memory, and `analysis_windows` for how much text that takes.
    Without, memory is the windows' hidden states and the widest layer's outputs, in float32.
    `on_progress` is told 10^9 multiplications.
    """
    anchors = (ANCHOR,) if sensitivities else ()
    tokens = sum(len(window) for window in windows)
    total = work(source.architecture, tokens, len(anchors))
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        on_progress(Progress("analysing", -(-done // 10**9), -(-total // 10**9), "G"))

    seen = InputSums()
    front = Wavefront(source, windows, anchors)
    nats = front.run(seen.add, advance).mean(axis=1)
    inputs, found = seen.inputs(), {}
    for variant, divergence in zip(front.variants, nats, strict=True):
        rows = sampled_rows(source, variant.part)
        met = inputs.get(variant.part.weight.name)
        diagonal = None if met is None else met.squares
        error = squared_error(rows, variant.anchor.rounded(rows), diagonal)
        found[variant.part.name] = Sensitivity(float(divergence), error)
    return Analysis(inputs, found)


def analysis_windows(architecture: Architecture) -> int:
    """Windows of WINDOW tokens by which sensitivities are to be measured."""
    found = matrices(architecture)
    wanted = 4 if sum(part.rows * part.weight.shape[1] for part in found) < LARGE else 2
    window = 4 * WINDOW * architecture.hidden_size * (1 + len(found))
    return max(1, min(wanted, STATES // window))
