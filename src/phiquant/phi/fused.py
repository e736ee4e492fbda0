"""The matrices that a checkpoint's fused weights consist of.

Phi-3 stores queries, keys and values in one matrix, and gate and up in another, one above the
other. They do different things to the output, and a format that can store them apart may give
each its own grid. The names are those that unfused checkpoints (Llama, Mistral) use.
"""

from dataclasses import dataclass

from phiquant.phi.architecture import Architecture, Role, Weight

VALUES = "v_proj"
PARTS = {Role.QKV: ("q_proj", "k_proj", VALUES), Role.GATE_UP: ("gate_proj", "up_proj")}
FUSED = {Role.QKV: "qkv_proj", Role.GATE_UP: "gate_up_proj"}


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


def parts_of(weight: Weight, architecture: Architecture) -> tuple[Part, ...]:
    """What `weight` consists of, in the order of its rows: itself alone, unless it is fused."""
    if weight.role not in PARTS:
        return (Part(weight.name, weight, 0, weight.shape[0]),)
    rows = [architecture.intermediate_size] * 2
    if weight.role is Role.QKV:
        heads = (architecture.heads, architecture.kv_heads, architecture.kv_heads)
        rows = [count * architecture.head_size for count in heads]
    parts, first = [], 0
    for name, count in zip(PARTS[weight.role], rows, strict=True):
        parts.append(Part(weight.name.replace(FUSED[weight.role], name), weight, first, count))
        first += count
    return tuple(parts)


def matrices(architecture: Architecture) -> tuple[Part, ...]:
    """Every matrix of a model in network order, the fused ones by their parts."""
    weights = [weight for weight in architecture.weights() if not weight.role.is_norm]
    return tuple(part for weight in weights for part in parts_of(weight, architecture))
