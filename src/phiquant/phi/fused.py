"""The matrices that a checkpoint's fused weights consist of.

Phi-3 stores queries, keys and values in one matrix, and gate and up in another, one above the
other. They do different things to the output, and a format that can store them apart may give
each its own grid. The names are those that unfused checkpoints (Llama, Mistral) use.
"""

from dataclasses import dataclass

from phiquant.phi.architecture import Architecture, Role, Weight

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


def parts_of(weight: Weight, architecture: Architecture) -> tuple[Part, ...]:
    """What `weight` consists of, in the order of its rows: itself alone, unless it is fused."""
    heads, kv_heads, size = architecture.heads, architecture.kv_heads, architecture.head_size
    inner = architecture.intermediate_size
    if weight.role is Role.QKV:
        rows = {"q_proj": heads * size, "k_proj": kv_heads * size, "v_proj": kv_heads * size}
    elif weight.role is Role.GATE_UP:
        rows = {"gate_proj": inner, "up_proj": inner}
    else:
        return (Part(weight.name, weight, 0, weight.shape[0]),)
    found, first = [], 0
    for name, count in rows.items():
        found.append(Part(weight.name.replace(FUSED[weight.role], name), weight, first, count))
        first += count
    return tuple(found)


def matrices(architecture: Architecture) -> tuple[Part, ...]:
    """Every matrix of a model in network order, the fused ones by their parts."""
    weights = [weight for weight in architecture.weights() if not weight.role.is_norm]
    return tuple(part for weight in weights for part in parts_of(weight, architecture))
