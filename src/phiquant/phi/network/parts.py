"""A network as a value: an embedding, blocks of a few kinds of parts, a norm and a head.

Everything that goes through a network, re-scales it, checks it or writes it down works from this
value alone, and knows parts and no model. What follows from how the parts are joined is said here
once: in which order a token meets the linear layers (`Block.steps`), and what gives each of them
its input channels (`Network.feeds`). A module of `phi.classes` makes the value for its models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

VALUES = "v_proj"
"""The last word of the name of attention's values, where they are a matrix of their own."""


class Role(StrEnum):
    """What a weight does in the network; the word that plans and mixtures are written in."""

    EMBEDDING = "embedding"
    ATTENTION_NORM = "attention_norm"
    QKV = "qkv"
    ATTENTION_OUTPUT = "attention_output"
    FFN_NORM = "ffn_norm"
    GATE_UP = "gate_up"
    DOWN = "down"
    FINAL_NORM = "final_norm"
    HEAD = "head"

    @property
    def is_norm(self) -> bool:
        """Whether the weight is a vector of RMSNorm gains, which no format quantizes."""
        return self in (Role.ATTENTION_NORM, Role.FFN_NORM, Role.FINAL_NORM)


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight that the network requires: its checkpoint name and (out, in) shape."""

    name: str
    role: Role
    layer: int | None
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first` to `first` + `rows` of a checkpoint's weight, under a name of their own."""

    name: str
    weight: Weight
    first: int
    rows: int

    @property
    def last(self) -> int:
        """The row behind the last one."""
        return self.first + self.rows

    @property
    def stem(self) -> str:
        """The name without its suffix: what modules are called, and tensors of some formats."""
        return self.name.removesuffix(".weight")

    @property
    def word(self) -> str:
        """The last word of that: which part it is."""
        return self.stem.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x. `parts` are the matrices that W (out, in) consists of, in the order of its rows.

    Neighbours that take the same inputs may be stored as one matrix, one above the other. They do
    different things to the output, and a format that can store them apart may give each its own
    grid.
    """

    weight: Weight
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """The number of outputs."""
        return self.weight.shape[0]

    @property
    def columns(self) -> int:
        """The number of inputs."""
        return self.weight.shape[1]


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm: y = γ x / √(mean x² + ε), with the gains γ (hidden,)."""

    gains: Weight
    epsilon: float


@dataclass(frozen=True, slots=True)
class LongRope:
    """LongRoPE: two lists of factors that stretch the rotary wavelengths.

    The short factors hold while the whole sequence has at most `original_positions` tokens, the
    long ones beyond. cos and sin are multiplied by `attention_factor` either way.
    Each list has `Rope.dimensions / 2` entries. Source: https://arxiv.org/abs/2402.13753.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_positions: int
    attention_factor: float


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding over the first `dimensions` of each head (NeoX halves)."""

    theta: float
    dimensions: int
    long: LongRope | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal attention. `qkv` gives queries, then keys, then values, a head after the other.

    heads / kv_heads query heads share a key head and its values. With a `window`, token i sees
    token j only if i - j < `window`.
    """

    qkv: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_size: int
    rope: Rope
    window: int | None

    @property
    def width(self) -> int:
        """Values that attention leaves for a token."""
        return self.heads * self.head_size


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """SwiGLU: down(silu(gate x) * (up x)). `gate_up` gives the gate's outputs, then those of up."""

    gate_up: Linear
    down: Linear

    @property
    def width(self) -> int:
        """Values that the gate leaves for a token."""
        return self.down.columns


@dataclass(frozen=True, slots=True)
class Step:
    """A linear layer on a token's way through a block.

    It takes the residual stream, through `norm`; without one, what the step before it left. Its
    outputs go through `then` and are left for the next step; without that, they are added to the
    stream.
    """

    linear: Linear
    norm: Norm | None
    then: Attention | GatedFeedForward | None


@dataclass(frozen=True, slots=True)
class Feed:
    """What gives a linear layer its input channels, which may be scaled against its columns.

    That is the gains of a norm, one a column, or the last `rows` rows of the layer before it: one a
    column too, but for the values of `attention`, which serve every query head of their group.
    """

    into: Linear
    norm: Norm | None = None
    layer: Linear | None = None
    rows: int = 0
    attention: Attention | None = None

    @property
    def feeder(self) -> Weight:
        """The weight that the channels can be scaled in."""
        if self.norm is not None:
            return self.norm.gains
        assert self.layer is not None
        return self.layer.weight


@dataclass(frozen=True, slots=True)
class Block:
    """h += attention(norm(h)), then h += feed_forward(norm(h)), over the residual stream h."""

    attention_norm: Norm
    attention: Attention
    feed_forward_norm: Norm
    feed_forward: GatedFeedForward

    @property
    def steps(self) -> tuple[Step, ...]:
        """The linear layers in the order in which a token meets them."""
        attention, feed_forward = self.attention, self.feed_forward
        return (
            Step(attention.qkv, self.attention_norm, attention),
            Step(attention.output, None, None),
            Step(feed_forward.gate_up, self.feed_forward_norm, feed_forward),
            Step(feed_forward.down, None, None),
        )

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Norms and linear layers in the order of the network."""
        attention, feed_forward = self.attention, self.feed_forward
        return (
            self.attention_norm.gains,
            attention.qkv.weight,
            attention.output.weight,
            self.feed_forward_norm.gains,
            feed_forward.gate_up.weight,
            feed_forward.down.weight,
        )

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """What gives each linear layer its input channels."""
        attention, feed_forward = self.attention, self.feed_forward
        values = attention.kv_heads * attention.head_size
        return (
            Feed(attention.qkv, self.attention_norm),
            Feed(attention.output, None, attention.qkv, values, attention),
            Feed(feed_forward.gate_up, self.feed_forward_norm),
            Feed(feed_forward.down, None, feed_forward.gate_up, feed_forward.width),
        )


@dataclass(frozen=True)
class Network:
    """A decoder. The head of a network that `is_tied` is its embedding once more."""

    embedding: Linear
    blocks: tuple[Block, ...]
    norm: Norm
    head: Linear
    is_tied: bool

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """All weights, in the order of the network."""
        inside = (weight for block in self.blocks for weight in block.weights)
        head = () if self.is_tied else (self.head.weight,)
        return (self.embedding.weight, *inside, self.norm.gains, *head)

    @cached_property
    def linear(self) -> dict[str, Linear]:
        """Embedding, linear layers and head by the names of their weights, in that order."""
        return {layer.weight.name: layer for layer in self._layers()}

    @cached_property
    def steps(self) -> dict[str, Step]:
        """Every step of every block, by the name of its layer's weight, in that order."""
        steps = (step for block in self.blocks for step in block.steps)
        return {step.linear.weight.name: step for step in steps}

    @cached_property
    def matrices(self) -> tuple[Part, ...]:
        """Every matrix in the order of the network, the fused ones by their parts."""
        return tuple(part for layer in self.linear.values() for part in layer.parts)

    def feeds(self) -> Iterator[Feed]:
        """What gives each linear layer its input channels, in the order of the network.

        A tied head is left out: its columns are the embedding's, which nothing feeds.
        """
        for block in self.blocks:
            yield from block.feeds
        if not self.is_tied:
            yield Feed(self.head, self.norm)

    @property
    def rope(self) -> Rope:
        """How every block turns queries and keys: all alike."""
        return self.blocks[0].attention.rope

    def _layers(self) -> Iterator[Linear]:
        yield self.embedding
        yield from (step.linear for step in self.steps.values())
        yield self.head
