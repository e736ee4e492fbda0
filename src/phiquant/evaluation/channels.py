"""By what an artifact's channels are scaled, told from its weights and the checkpoint's.

Rescaling (`quantization.rescaling`) multiplies a norm's gains, and the rows of the values and of
the up half, by what the columns that they feed are divided by. The gains' factor is a quotient; a
row's is the one with which the checkpoint's row fits the stored one best, in the least squares.
In float64, for a corrupt weight's factor may be beyond float32.
"""

import numpy as np

from phiquant.phi.network.channels import to_columns
from phiquant.phi.network.parts import Network, Weight
from phiquant.phi.weights import Doubles, Floats


class ChannelFactors:
    """The factors found so far, while weights are gone through in the order of the network."""

    def __init__(self, network: Network) -> None:
        feeds = list(network.feeds())
        self._from = {feed.feeder.name: feed for feed in feeds}
        self._into = {feed.into.weight.name: feed for feed in feeds}
        self._found: dict[str, list[Doubles]] = {}

    def undone(self, weight: Weight, first: int, stored: Floats, true: Floats) -> Floats | Doubles:
        """The `stored` rows of `weight` from `first` on as if nothing were scaled.

        `true` are the checkpoint's. What they are scaled by is kept for the weight they feed; so
        a norm's gains come back as the checkpoint's, but where either is zero.
        """
        feeds = self._from.get(weight.name)
        if weight.role.is_norm:
            if feeds is None:  # a tied head's: nothing can divide the embedding's columns
                return stored
            gains = _factors(stored[:, None], true[:, None])
            self._found[feeds.into.weight.name] = [gains]
            return stored / gains
        columns = self._columns(weight)
        even = stored if columns is None else stored * columns
        at = max(0, weight.shape[0] - (feeds.rows if feeds else 0) - first)
        if feeds is None or at >= len(stored):
            return even
        rows = _factors(even[at:], true[at:])
        self._found.setdefault(feeds.into.weight.name, []).append(rows)
        return np.concatenate([even[:at], even[at:] / rows[:, None]])

    def _columns(self, weight: Weight) -> Doubles | None:
        """By what the columns of `weight` are to be multiplied; None where that is not known."""
        known = self._found.get(weight.name)
        if known is None:
            return None
        factors, feed = np.concatenate(known), self._into[weight.name]
        if len(factors) != (feed.rows or weight.shape[1]):
            return None
        return to_columns(feed, factors)

    def forget(self, weight: Weight) -> None:
        """Drop what was told of a weight that is done with."""
        self._found.pop(weight.name, None)


def _factors(stored: Floats | Doubles, true: Floats) -> Doubles:
    """By what each row of `true` (rows, columns) fits the `stored` one best; 1 where it is zero."""
    across = np.einsum("ij,ij->i", stored, true, dtype=np.float64)
    within = np.einsum("ij,ij->i", true, true, dtype=np.float64)
    fits = (across != 0) & (within != 0)
    factors: Doubles = np.divide(across, within, out=np.ones_like(across), where=fits)
    return factors
