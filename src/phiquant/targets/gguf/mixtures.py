"""llama.cpp's mixtures: which storage type each tensor of a Phi-3 model gets under each name.

A name such as Q4_K_M stands for a base type and for a few roles that get another one, some of
them only in certain layers. The rules below give what `llama-quantize` gives an architecture
`phi3`, tensor by tensor; the fused `attn_qkv` counts as a value projection there.
Source: llama.cpp, src/llama-quant.cpp. A row length that is no multiple of 32 is kept in F16;
releases before the autumn of 2026 stop there instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from phiquant.phi.network.parts import Role
from phiquant.planning.precision import Precision


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where in the network a tensor stands, as far as the rules ask."""

    role: Role
    layer: int
    layers: int
    queries_per_kv_head: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A storage type and the reason for it."""

    type: str
    reason: str


Rule = Callable[[TensorPlace], Choice | None]
"""What a role gets at a place; None means the base type."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """One of llama.cpp's named file types.

    `file_type` is the number in `general.file_type` (llama.cpp's enum llama_ftype).
    """

    file_type: int
    base: str
    sentence: str
    rules: Mapping[Role, Rule] = field(default_factory=dict)


def _always(type: str) -> Rule:
    return lambda place: Choice(type, f"this mixture's type for {_plural(place.role)}")


def _first(count: int, type: str, then: Rule | None = None) -> Rule:
    def rule(place: TensorPlace) -> Choice | None:
        if place.layer < count:
            return Choice(type, f"among the first {count} layers, which get more bits")
        return then(place) if then else None

    return rule


def _first_share(share: int, type: str, then: Rule | None = None) -> Rule:
    def rule(place: TensorPlace) -> Choice | None:
        if place.layer < place.layers // share:
            return Choice(type, f"in the first 1/{share} of the layers, which get more bits")
        return then(place) if then else None

    return rule


def _more_bits(type: str) -> Rule:
    """More bits in the first and the last eighth of the layers and in every third between."""

    def rule(place: TensorPlace) -> Choice | None:
        eighth = place.layers // 8
        outer = place.layer < eighth or place.layer >= 7 * place.layers // 8
        if outer or (place.layer - eighth) % 3 == 2:
            return Choice(type, "one of the layers to which the mixture gives more bits")
        return None

    return rule


def _by_sharing(shared: str, else_: str) -> Rule:
    """The value projections are smaller, and matter more, where four query heads share one."""

    def rule(place: TensorPlace) -> Choice:
        if place.queries_per_kv_head >= 4:
            return Choice(shared, "four or more query heads share a value head: more bits")
        return Choice(else_, f"this mixture's type for {_plural(place.role)}")

    return rule


def _plural(role: Role) -> str:
    return f"{role.value.replace('_', ' ')} projections"


MIXTURES: Mapping[str, Mixture] = {
    "F32": Mixture(0, "F32", "every weight in 32 bits, exact"),
    "F16": Mixture(1, "F16", "16 bits a weight, norms in 32"),
    "BF16": Mixture(32, "BF16", "16 bits a weight, the published checkpoints' own; norms in 32"),
    "Q8_0": Mixture(7, "Q8_0", "8.5 bits a weight, hardly distinguishable from the original"),
    "Q6_K": Mixture(18, "Q6_K", "6.56 bits a weight"),
    "Q5_K_M": Mixture(
        17,
        "Q5_K",
        "5.5 bits a weight, half of the value and down projections in 6.56",
        {Role.QKV: _more_bits("Q6_K"), Role.DOWN: _more_bits("Q6_K")},
    ),
    "Q5_K_S": Mixture(16, "Q5_K", "5.5 bits a weight"),
    "Q5_1": Mixture(9, "Q5_1", "6 bits a weight, scale and offset per 32; older than Q5_K"),
    "Q5_0": Mixture(8, "Q5_0", "5.5 bits a weight, one scale per 32; older than Q5_K"),
    "Q4_K_M": Mixture(
        15,
        "Q4_K",
        "4.5 bits a weight, half of the value and down projections in 6.56; the usual choice",
        {Role.QKV: _more_bits("Q6_K"), Role.DOWN: _more_bits("Q6_K")},
    ),
    "Q4_K_S": Mixture(
        14,
        "Q4_K",
        "4.5 bits a weight, a few early layers in 5.5",
        {Role.QKV: _first(4, "Q5_K"), Role.DOWN: _first_share(8, "Q5_K")},
    ),
    "Q4_1": Mixture(3, "Q4_1", "5 bits a weight, scale and offset per 32; older than Q4_K"),
    "Q4_0": Mixture(2, "Q4_0", "4.5 bits a weight, one scale per 32; older than Q4_K, fast on Arm"),
    "Q3_K_L": Mixture(
        13,
        "Q3_K",
        "3.44 bits a weight, attention and down projections in 5.5",
        {
            Role.QKV: _always("Q5_K"),
            Role.ATTENTION_OUTPUT: _always("Q5_K"),
            Role.DOWN: _always("Q5_K"),
        },
    ),
    "Q3_K_M": Mixture(
        12,
        "Q3_K",
        "3.44 bits a weight, attention and down projections in 4.5 to 5.5",
        {
            Role.QKV: _first(2, "Q5_K", _always("Q4_K")),
            Role.ATTENTION_OUTPUT: _always("Q4_K"),
            Role.DOWN: _first_share(16, "Q5_K", _always("Q4_K")),
        },
    ),
    "Q3_K_S": Mixture(11, "Q3_K", "3.44 bits a weight"),
    "Q2_K": Mixture(
        10,
        "Q2_K",
        "2.63 bits a weight, attention and down projections in 3.44 or more",
        {
            Role.QKV: _by_sharing("Q4_K", "Q3_K"),
            Role.ATTENTION_OUTPUT: _always("Q3_K"),
            Role.DOWN: _always("Q3_K"),
        },
    ),
}
"""Every type that can be asked for. llama.cpp's Q2_K_S and IQ types need an importance matrix."""

DEFAULTS: Mapping[Precision, str] = {
    "int4": "Q4_K_M",
    "int8": "Q8_0",
    "fp16": "F16",
    "fp32": "F32",
}
"""The mixture that a precision stands for."""

FLOATS = ("F32", "F16", "BF16")

BLOCK = {
    "F32": 1, "F16": 1, "BF16": 1,
    "Q8_0": 32, "Q4_0": 32, "Q4_1": 32, "Q5_0": 32, "Q5_1": 32,
    "Q2_K": 256, "Q3_K": 256, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256,
}  # fmt: skip
"""Weights in one stored block; a row must be a whole number of blocks."""

FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What a row that is no multiple of 256 gets instead."""


def choose(mixture: Mixture, place: TensorPlace, *, is_head: bool, columns: int) -> Choice:
    """The type of a matrix with rows of `columns` weights.

    `is_head` says that the matrix gives the logits: the head, or the embedding of a tied model.
    """
    if mixture.base in FLOATS:
        return Choice(mixture.base, f"the type asked for: {mixture.base}")
    if is_head:
        choice = _head(mixture.base, place.role, columns)
    else:
        rule = mixture.rules.get(place.role)
        choice = (rule(place) if rule else None) or Choice(
            mixture.base, f"the mixture's base type: {mixture.base}"
        )
    return _fitting(choice, columns)


def _head(base: str, role: Role, columns: int) -> Choice:
    what = "embedding that is the head too" if role is Role.EMBEDDING else "head"
    if columns % BLOCK[base]:
        return Choice(
            "Q8_0", f"{what}, and row length {columns} is no multiple of {BLOCK[base]}: Q8_0"
        )
    if base == "Q8_0":
        return Choice("Q8_0", f"{what}: Q8_0 like the rest")
    return Choice("Q6_K", f"{what}: Q6_K, for it decides every logit")


def _fitting(choice: Choice, columns: int) -> Choice:
    """`choice`, or what llama.cpp falls back to when rows are not made of whole blocks."""
    wanted = choice.type
    if columns % BLOCK[wanted] == 0:
        return choice
    fallback = FALLBACK.get(wanted, "F16")
    if columns % BLOCK[fallback]:
        fallback = "F16"
    return Choice(
        fallback,
        f"{choice.reason}; row length {columns} is no multiple of {BLOCK[wanted]}: "
        f"{wanted} falls back to {fallback}",
    )
