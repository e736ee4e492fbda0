"""What an artifact loses: as it was measured, or as is to be expected, and on what ground.

Measured on the model itself, where a verified artifact of it is at hand (its `phiquant.json`).
Else measured on the demo model, or, for a type that was not, interpolated between the demo's
types of the same target: the logarithm of the divergence falls about evenly with the bits that
the layers' matrices have. A type of llama.cpp's has other bits in the demo model, whose rows are
no multiples of 256; then the bits decide, not the name.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Literal

from phiquant.errors import InputError
from phiquant.evaluation.manifest import read_manifest
from phiquant.phi.architecture import Role
from phiquant.phi.source import Source
from phiquant.planning.plan import Plan

TABLE = Path(__file__).parent / "demo_losses.toml"
DEMO = "measured on the demo model, SmolLM2-135M, which is harder to quantize than a Phi"
SAME_BITS = 0.2
"""Bits a weight within which a type of the demo model is the same as the plan's."""
MATRICES = (Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP, Role.DOWN)

Basis = Literal["measured", "demo", "interpolated"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean KL divergence to the original, in nats a token."""

    nats: float
    basis: Basis
    told: str
    """The basis in words."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A verified artifact: of which model, in which form, and what it lost."""

    names: frozenset[str]
    target: str
    type: str
    nats: float
    path: Path


def layer_bits(plan: Plan) -> float:
    """Stored bits a weight of the layers' matrices."""
    rows = [row for row in plan.rows if row.role in MATRICES]
    return 8 * sum(row.nbytes for row in rows) / sum(row.weights for row in rows)


def read_measured(paths: Iterable[Path]) -> tuple[Measured, ...]:
    """What verified artifacts' records say. InputError for one that is not verified."""
    found = []
    for path in paths:
        manifest = read_manifest(path)
        verification = manifest.verification if manifest else None
        try:
            assert manifest is not None
            assert verification is not None
            nats = float(verification["figures"]["mean"]["value"])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} has no record of a verification; run: phiquant verify {path} --against "
                "MODEL"
            ) from error
        names = frozenset(
            str(manifest.source[key]) for key in ("name", "hub_id") if manifest.source.get(key)
        )
        plan = manifest.plan
        found.append(Measured(names, str(plan["target"]), str(plan["type"]), nats, path))
    return tuple(found)


def loss_of(source: Source, plan: Plan, measured: Sequence[Measured] = ()) -> Loss:
    """What an artifact of `plan` of the model `source` loses."""
    for one in measured:
        same = one.names & {source.name, source.hub_id}
        if same and (one.target, one.type) == (plan.target, plan.type):
            return Loss(one.nats, "measured", f"measured: {one.path}")
    known, bits = _demo()[plan.target], layer_bits(plan)
    at, nats = known.get(plan.type, (0.0, 0.0))
    if abs(at - bits) < SAME_BITS:
        return Loss(nats, "demo", DEMO)
    return _between(known, bits)


def _between(known: Mapping[str, tuple[float, float]], bits: float) -> Loss:
    """On the line through the neighbours of `bits`, or through the first two or the last two."""
    points = sorted((at, log(nats), name) for name, (at, nats) in known.items())
    after = next((at for at, point in enumerate(points) if point[0] >= bits), len(points) - 1)
    after = max(1, after)
    (low, first, one), (high, last, other) = points[after - 1], points[after]
    share = (bits - low) / (high - low)
    nats = exp((1 - share) * first + share * last)
    how = "between" if 0 <= share <= 1 else "beyond"
    told = f"expected from {bits:.2f} bits a weight, {how} the demo model's {one} and {other}"
    return Loss(nats, "interpolated", told)


@cache
def _demo() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    """Target → type → bits, nats."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        target: {type: (float(bits), float(nats)) for type, (bits, nats) in types.items()}
        for target, types in document.items()
    }
