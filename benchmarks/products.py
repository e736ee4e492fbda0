"""The matrix products that a calibrated run cannot do without, counted apart from the run itself.

In floating-point operations; a multiplication and an addition are one each. T tokens, a layer of
r rows and n columns:

- forward: 2 T r n through every layer, and scores and sums of causal attention, 2 T L h a block
  (L tokens a sequence, h the width of all heads), once for each network that the sample walks
  through: the one in the making, and the original where the method wants it;
- moments: T n^2 a layer input (symmetric: half of 2 T n^2), and 2 T n^2 for the cross moments
  where the method corrects for shifted inputs;
- factors: n^3, for a Cholesky factor and its inverse;
- rounding: r n^2 for feedback into the columns that follow, and 2 r n^2 for each sweep over codes
  or parameters.

The embedding is rounded without a text unless it is the head too; then, like any head, for the
final norm's output. A tied one needs that before the walk: a forward pass over some of the tokens.
"""

from dataclasses import dataclass

from phiquant.calibration.cost import HEAD_TOKENS
from phiquant.phi.architecture import Architecture, Role, Weight
from phiquant.quantization.calibrated import Method

LAYERS = (Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP, Role.DOWN)


@dataclass(frozen=True, slots=True)
class Products:
    """Operations by kind."""

    forward: int
    moments: int
    factors: int
    rounding: int

    @property
    def total(self) -> int:
        return self.forward + self.moments + self.factors + self.rounding


def count(model: Architecture, sequences: int, length: int) -> Products:
    """Of one artifact rounded by the default method over `sequences` of `length` tokens."""
    method, tokens = Method(), sequences * length
    layers = [one for one in model.weights() if one.role in LAYERS]
    head = next(one for one in model.weights() if one.name == model.head_name)
    attention = 2 * length * model.heads * model.head_size * model.layers
    through = sum(2 * one.shape[0] * one.shape[1] for one in layers) + attention
    networks = 2 if method.shift else 1
    before = min(tokens, HEAD_TOKENS) if model.tied_head else 0
    at_head = before or tokens
    symmetric = sum(one.shape[1] ** 2 for one in layers)
    return Products(
        forward=tokens * through * networks + before * through,
        moments=tokens * symmetric * (3 if method.shift else 1) + at_head * head.shape[1] ** 2,
        factors=sum(one.shape[1] ** 3 for one in (*layers, head)),
        rounding=sum(rounding(one, method) for one in (*layers, head)),
    )


def rounding(weight: Weight, method: Method) -> int:
    """Operations for one matrix, its moments given."""
    rows, columns = weight.shape
    sweeps = method.sweeps * (method.codes + method.parameters)
    return rows * columns**2 * (1 + 2 * sweeps)
