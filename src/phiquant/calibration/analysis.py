"""One pass of a sample through the original network, for every target's decisions.

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
from phiquant.phi.weights import Tokens, WeightSource
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.inputs import Inputs

ANCHOR = Anchor(4)

STATES = 3 << 29
"""Bytes that the variants' hidden states may take."""

LARGE = 1 << 30
"""Weights from which on a model is measured over half as many windows."""

WINDOW = 128
"""Tokens in a window of the sample over which sensitivities are measured."""


@dataclass(frozen=True)
class Analysis:
    """Statistics of a model over a sample, by the checkpoint's names."""

    inputs: Mapping[str, Inputs]
    """Statistics of each matrix's inputs."""
    sensitivities: Mapping[str, Sensitivity] = field(default_factory=dict)
    """The sensitivity of every matrix; the parts of fused weights have names of their own
    (`network.parts`). Empty where they were not measured."""


def analyse(
    source: WeightSource,
    windows: Sequence[Tokens],
    on_progress: OnProgress = ignore,
    *,
    sensitivities: bool = False,
) -> Analysis:
    """Pass `windows` of tokens through the network of `source` together.

    With `sensitivities`, a variant of the network for each matrix, in which that matrix is rounded,
    goes along: `wavefront` says what memory that takes, `analysis_windows` for how much text.
    Without, the memory is that of the windows' hidden states and the widest layer's outputs, in
    float32.
    `on_progress` counts in 10^9 multiplications.
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
    inputs, measured = seen.inputs(), {}
    for variant, divergence in zip(front.variants, nats, strict=True):
        rows = sampled_rows(source, variant.part)
        part_inputs = inputs.get(variant.part.weight.name)
        diagonal = None if part_inputs is None else part_inputs.squares
        error = squared_error(rows, variant.anchor.rounded(rows), diagonal)
        measured[variant.part.name] = Sensitivity(float(divergence), error)
    return Analysis(inputs, measured)


def analysis_windows(architecture: Architecture) -> int:
    """The number of windows of WINDOW tokens over which sensitivities are measured."""
    parts = architecture.network.matrices
    wanted = 4 if sum(part.rows * part.weight.shape[1] for part in parts) < LARGE else 2
    window = 4 * WINDOW * architecture.hidden_size * (1 + len(parts))
    return max(1, min(wanted, STATES // window))
