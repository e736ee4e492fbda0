"""By what an artifact's channels are scaled, told from its weights and the checkpoint's.

Rescaling (`quantization.rescaling`) multiplies a norm's gains, and the rows of the values and of
the up half, by what the columns that they feed are divided by. The gains' factor is a quotient; a
row's is the one with which the checkpoint's row fits the stored one best, in the least squares.
"""

import numpy as np

from phiquant.phi.architecture import Architecture, Role, Weight
from phiquant.phi.weights import Doubles, Floats

"""A corrupt weight's factor may be beyond float32."""

FEEDS = {
    Role.ATTENTION_NORM: Role.QKV,
    Role.FFN_NORM: Role.GATE_UP,
    Role.FINAL_NORM: Role.HEAD,
    Role.QKV: Role.ATTENTION_OUTPUT,
    Role.GATE_UP: Role.DOWN,
}
"""What the channels of a weight go to."""


class ChannelFactors:
    """The factors found so far, while weights are gone through in the order of the network."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._found: dict[Role, list[Doubles]] = {}

    def undone(self, weight: Weight, first: int, stored: Floats, true: Floats) -> Floats | Doubles:
        """The `stored` rows of `weight` from `first` on as if nothing were scaled.

        `true` are the checkpoint's. What they are scaled by is kept for the weight they feed; so
        a norm's gains come back as the checkpoint's, but where either is zero.
        """
        if weight.role is Role.FINAL_NORM and self._architecture.tied_head:
            return stored  # the columns it feeds are the embedding's: nothing can divide them
        if weight.role.is_norm:
            gains = _factors(stored[:, None], true[:, None])
            self._found[FEEDS[weight.role]] = [gains]
            return stored / gains
        columns = self._columns(weight)
        even = stored if columns is None else stored * columns
        at = max(0, weight.shape[0] - self._feeding(weight.role) - first)
        if at >= len(stored):
            return even
        rows = _factors(even[at:], true[at:])
        self._found.setdefault(FEEDS[weight.role], []).append(rows)
        return np.concatenate([even[:at], even[at:] / rows[:, None]])

    def _feeding(self, role: Role) -> int:
        """How many of the last rows of a weight feed the columns of the next."""
        model = self._architecture
        if role is Role.QKV:
            return model.kv_heads * model.head_size
        return model.intermediate_size if role is Role.GATE_UP else 0

    def _columns(self, weight: Weight) -> Doubles | None:
        """By what the columns of `weight` are to be multiplied; None where that is not known."""
        norms = self._found.get(weight.role)
        if norms is None:
            return None
        model, factors = self._architecture, np.concatenate(norms)
        if weight.role is Role.ATTENTION_OUTPUT:  # a value serves every query head of its group
            grouped = factors.reshape(model.kv_heads, 1, -1)
            factors = np.repeat(grouped, model.heads // model.kv_heads, axis=1).reshape(-1)
        return factors if len(factors) == weight.shape[1] else None

    def forget(self, role: Role) -> None:
        """Drop what was found for a weight that is done with."""
        self._found.pop(role, None)


def _factors(stored: Floats | Doubles, true: Floats) -> Doubles:
    """By what each row of `true` (rows, columns) fits the `stored` one best; 1 where it is zero."""
    across = np.einsum("ij,ij->i", stored, true, dtype=np.float64)
    within = np.einsum("ij,ij->i", true, true, dtype=np.float64)
    fits = (across != 0) & (within != 0)
    factors: Doubles = np.divide(across, within, out=np.ones_like(across), where=fits)
    return factors
