"""The same weights in a slightly different network: another rotary embedding, another mask."""

from phiquant.phi.architecture import Architecture
from phiquant.phi.weights import Floats, WeightSource


class Reconfigured:
    """The weights of `source` in the network that `architecture` describes.

    The weights' names and shapes must be the same in both.
    """

    def __init__(self, source: WeightSource, architecture: Architecture) -> None:
        self._source = source
        self._architecture = architecture

    @property
    def architecture(self) -> Architecture:
        """The network."""
        return self._architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a weight under its checkpoint name."""
        return self._source.weight(name, first, last)
