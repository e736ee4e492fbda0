"""What a Phi model is: its dimensions, its rotary embedding, and the network that they make.

Values only. `config.py` reads them from a checkpoint's configuration, `checkpoint.py` checks
the tensors on disk against the network's weights, and every later step works from them alone.
"""

from dataclasses import dataclass
from functools import lru_cache

from phiquant.phi.classes import phi3
from phiquant.phi.network.parts import Network, Rope, Weight


@dataclass(frozen=True, slots=True)
class Architecture:
    """The dimensions of one Phi-3 style decoder."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int
    norm_epsilon: float
    tied_head: bool
    max_positions: int
    sliding_window: int | None
    rope: Rope

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: queries, then keys, then values."""
        return (self.heads + 2 * self.kv_heads) * self.head_size

    @property
    def network(self) -> Network:
        """The network with these dimensions."""
        return _network(self)

    @property
    def head_name(self) -> str:
        """The weight that gives the logits: a head of its own, or the embedding."""
        return self.network.head.weight.name

    def weights(self) -> tuple[Weight, ...]:
        """All weights that the model has, in network order."""
        return self.network.weights


@lru_cache(maxsize=8)
def _network(architecture: Architecture) -> Network:
    return phi3.network(architecture)
