"""What an artifact takes in memory while its runtime runs it, term by term.

Each target works the terms out from the plan and the dimensions, as its runtime allocates them
(`targets/*/footprint.py`); here is what they have in common. All are bytes.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from phiquant.phi.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Use:
    """How an artifact is run: tokens of context that there must be room for, and at most how many
    of them come at once, as a prompt; and on what.
    """

    context: int
    prompt: int
    provider: str = "cpu"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Peak memory of the process (resident pages, the mapped ones of the weights included)."""

    weights: int
    """As they are stored, mapped or read."""
    copies: int
    """Weights that the runtime holds once more, in a form of its own."""
    cache: int
    """Keys and values of the whole context."""
    working: int
    """Activations and logits of the largest step."""
    runtime: int
    """Code and tables of the runtime, tokenizer included."""
    cache_type: str
    """Element type of keys and values: "f16", "f32", "u8"."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.copies + self.cache + self.working + self.runtime

    def as_json(self) -> dict[str, Any]:
        """The terms and their sum."""
        return asdict(self) | {"total": self.total}


def cached_values(architecture: Architecture) -> int:
    """Keys and values that one token leaves in the cache, over all layers."""
    return 2 * architecture.layers * architecture.kv_heads * architecture.head_size


def matrix_weights(architecture: Architecture) -> int:
    """Weights of the layers' matrices and of the head, which every token goes through."""
    rows = [one for one in architecture.weights() if len(one.shape) > 1]
    total = sum(prod(one.shape) for one in rows)
    table = architecture.vocabulary_size * architecture.hidden_size
    return total if architecture.tied_head else total - table
