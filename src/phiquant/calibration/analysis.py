"""One pass of a sample through the original: what every target's decisions may rest on.

`diagonals` holds the mean square of every input channel of every matrix, which weighs the errors
of rounding. A tied embedding counts as the head that it also is; an embedding of its own has no
input channels and no entry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.calibration.diagonals import Diagonals
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Floats, WeightSource
from phiquant.progress import OnProgress, Progress, ignore

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Analysis:
    """What a sample says about a model."""

    diagonals: Mapping[str, Floats]
    """Checkpoint name → mean squares of the matrix's inputs, (columns,)."""


def analyse(
    source: WeightSource, windows: Sequence[Tokens], on_progress: OnProgress = ignore
) -> Analysis:
    """Pass `windows` of tokens through the network of `source` together.

    Memory: their hidden states and the widest layer's outputs, in float32. Each weight is read
    once. `on_progress` is told layers.
    """
    found = Diagonals()
    reference = Reference(source, observe=found.add)
    layers = source.architecture.layers
    hidden, stack = reference.embedded(windows)
    for layer in range(layers):
        reference.layer(layer, hidden, stack)
        on_progress(Progress("analysing", layer + 1, layers, "layers"))
    found.add(source.architecture.head_name, reference.normed(hidden))
    return Analysis(found.result())
