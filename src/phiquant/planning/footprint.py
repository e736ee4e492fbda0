"""What an artifact takes in memory while its runtime runs it, term by term.

Each target works the terms out from the plan and the dimensions, as its runtime allocates them
(`targets/*/footprint.py`); here is what they have in common. All are bytes. The terms were found
by running the runtimes, and are checked by benchmarks/device_memory.py.
"""

from dataclasses import asdict, dataclass
from typing import Any

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role
from phiquant.planning.plan import Plan, PlanRow


@dataclass(frozen=True, slots=True)
class Use:
    """How an artifact is run: the tokens of context that must fit, how many of them come at once,
    as a prompt, at most, and on which provider.
    """

    context: int
    prompt: int
    provider: str = "cpu"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Peak memory of the process (resident pages, the mapped ones of the weights included)."""

    weights: int
    """Stored weights, mapped or read; pages that are mapped and never touched do not count."""
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
    released: int = 0
    """Mapped weights that are not read again once they are copied: they count in the peak, and the
    system takes them back when it needs the room."""

    @property
    def total(self) -> int:
        """The peak: all of it."""
        return self.weights + self.copies + self.cache + self.working + self.runtime

    @property
    def needed(self) -> int:
        """What a device must have room for."""
        return self.total - self.released

    def as_json(self) -> dict[str, Any]:
        """The terms and their sums."""
        return asdict(self) | {"total": self.total, "needed": self.needed}


def cached_values(architecture: Architecture) -> int:
    """Keys and values that one token leaves in the cache, over all layers."""
    return 2 * architecture.layers * architecture.kv_heads * architecture.head_size


def multiplied(plan: Plan) -> int:
    """Bytes of the matrices that tokens are multiplied by: those of layers, and the head."""
    return sum(row.nbytes for row in _matrices(plan))


def multiplied_weights(plan: Plan) -> int:
    """The number of weights in these matrices."""
    return sum(row.weights for row in _matrices(plan))


def looked_up(plan: Plan) -> int:
    """Bytes of a table that only gives the rows of tokens: an untied model's embedding. Where it
    is mapped, hardly any of its pages are ever touched.
    """
    if not any(row.role is Role.HEAD for row in plan.rows):
        return 0
    return sum(row.nbytes for row in plan.rows if row.role is Role.EMBEDDING)


def _matrices(plan: Plan) -> list[PlanRow]:
    has_head = any(row.role is Role.HEAD for row in plan.rows)
    return [
        row
        for row in plan.rows
        if row.source is not None
        and len(row.shape) > 1
        and not (has_head and row.role is Role.EMBEDDING)
    ]
