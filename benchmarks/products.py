"""The matrix products that a calibrated run cannot do without, counted apart from the run itself.

In floating-point operations; a multiplication and an addition are one each. T tokens, a layer of
r rows and n columns:

- forward: 2 T r n through every layer, and scores and sums of causal attention, 2 T L h a block
  (L tokens a sequence, h the width of all heads), once for each network that the sample walks
  through: the one in the making, and the original where the method wants it;
- moments: T n^2 a layer input (symmetric: half of 2 T n^2), and 2 T n^2 for the cross moments
  where the method corrects for shifted inputs; 2 T r n where it corrects for a residual stream that
  is behind, for the two layers that add to it;
- factors: n^3, for a Cholesky factor and its inverse; for the corrections 2 n^3, by substitution,
  and 2 r n^2 for the weight times what comes of it, and 2 r n^2 more for the stream behind;
- rounding: r n^2 for feedback into the columns that follow, and 2 r n^2 for each sweep over codes
  or parameters; where rows give feedback too, B at a time, r n B more, 2 r n B a sweep over codes,
  and no sweep over parameters;
- outputs: the run there and back over T' tokens, where the method wants it: 2 T' r n and attention
  there, the same again up to the gate, 2 T' r n and five products to attention's two back, 2 T' r B
  for the moments of each layer's gradients, and the head three times, 6 T' v d.

The embedding is rounded without a text unless it is the head too; then, like any head, for the
final norm's output. A tied one needs that before the walk: a forward pass over some of the tokens,
and so does the re-scaling of channels.
"""

from dataclasses import dataclass

from phiquant.calibration.cost import HEAD_TOKENS, RESCALING_TOKENS
from phiquant.calibration.fisher import TOKENS
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role, Weight
from phiquant.quantization.feedback.rounder import ROWS, Method

LAYERS = (Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP, Role.DOWN)
ADDING = (Role.ATTENTION_OUTPUT, Role.DOWN)
"""Layers that add to the residual stream."""


@dataclass(frozen=True, slots=True)
class Products:
    """Operations by kind."""

    forward: int
    moments: int
    factors: int
    rounding: int
    outputs: int

    @property
    def total(self) -> int:
        return self.forward + self.moments + self.factors + self.rounding + self.outputs


def count(model: Architecture, sequences: int, length: int) -> Products:
    """Of one artifact rounded by the default method over `sequences` of `length` tokens."""
    method, tokens = Method(), sequences * length
    layers = [one for one in model.weights() if one.role in LAYERS]
    head = next(one for one in model.weights() if one.name == model.head_name)
    attention = 2 * length * model.heads * model.head_size * model.layers
    through = sum(2 * one.shape[0] * one.shape[1] for one in layers) + attention
    networks = 2 if method.shift else 1
    at_head = min(tokens, HEAD_TOKENS) if model.tied_head else tokens
    before = at_head if model.tied_head else 0
    if method.rescaling:
        before += min(sequences, max(1, RESCALING_TOKENS // length)) * length
    symmetric = sum(one.shape[1] ** 2 for one in layers) * (3 if method.shift else 1)
    adding = [one for one in layers if one.role in ADDING and method.behind]
    behind = sum(2 * one.shape[0] * one.shape[1] for one in adding)
    return Products(
        forward=tokens * through * networks + before * through,
        moments=tokens * (symmetric + behind) + at_head * head.shape[1] ** 2,
        factors=sum(one.shape[1] ** 3 for one in (*layers, head))
        + sum(2 * sum(one.shape) * one.shape[1] ** 2 for one in layers if method.shift)
        + sum(2 * one.shape[0] * one.shape[1] ** 2 for one in adding),
        rounding=sum(rounding(one, method) for one in (*layers, head)),
        outputs=0 if method.output_damping is None else there_and_back(model, sequences, length),
    )


def rounding(weight: Weight, method: Method) -> int:
    """Operations for one matrix, its moments given."""
    rows, columns = weight.shape
    if method.output_damping is None or weight.role not in LAYERS:
        sweeps = method.sweeps * (method.codes + method.parameters)
        return rows * columns**2 * (1 + 2 * sweeps)
    return rows * columns * (columns + ROWS) * (1 + 2 * method.sweeps * method.codes)


def there_and_back(model: Architecture, sequences: int, length: int) -> int:
    """Operations of the run for the output moments."""
    tokens = min(sequences, max(1, TOKENS // length)) * length
    layers = [one for one in model.weights() if one.role in LAYERS]
    through = sum(2 * one.shape[0] * one.shape[1] for one in layers)
    down = sum(2 * one.shape[0] * one.shape[1] for one in layers if one.role is Role.DOWN)
    attention = 2 * length * model.heads * model.head_size * model.layers
    moments = sum(2 * -(-one.shape[0] // ROWS) * ROWS**2 for one in layers)
    head = 6 * model.vocabulary_size * model.hidden_size
    return tokens * (3 * through - down + 9 * attention // 2 + moments + head)
