"""What an artifact loses, measured or estimated, and on what the figure rests.

Measured on the model itself, where a verified artifact of it is at hand (its `phiquant.json`).
Else the demo model's figure for the type (`demo_losses.toml`, written by benchmarks/demo_losses.py,
every row measured), if the type has about the same bits there. Else nothing was measured, and the
figure is an estimate from bits alone: on the line between the demo's neighbouring types of the same
target, over which the logarithm of the divergence falls about evenly; beyond the least bits that
were measured, four times as much for each bit less, as the squared error of rounding has it.

Estimated are llama.cpp's mixtures of rows of 256 weights and OpenVINO's groups of 128, which the
demo's 576 columns do not divide into: those types have finer grids and more bits there than in a
Phi, so that their figures are no measurement of what a Phi's artifact would be made of.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Literal

from phiquant.errors import InputError, RequestError
from phiquant.evaluation.manifest import read_manifest
from phiquant.phi.network.parts import Role
from phiquant.phi.source import Source
from phiquant.planning.plan import Plan

TABLE = Path(__file__).parent / "demo_losses.toml"
DEMO = "measured on the demo model, SmolLM2-135M, which is harder to quantize than a Phi"
SAME_BITS = 0.2
"""Bits a weight by which a type of the demo model may differ and still count as the plan's."""
MATRICES = (Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP, Role.DOWN)

A_BIT = 4.0
"""The factor in divergence for each bit less: levels twice as coarse, four times the squared
error."""
LEAST = 1e-12
"""Nats that stand for a loss of 0, which has no logarithm."""

LossOrigin = Literal["measured", "demo", "interpolated"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean KL divergence to the original, in nats a token."""

    nats: float
    origin: LossOrigin
    told: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class VerifiedArtifact:
    """A verified artifact: of which model, in which form, and what it lost."""

    names: frozenset[str]
    target: str
    type: str
    nats: float
    path: Path


@dataclass(frozen=True, slots=True)
class DemoRow:
    """What a type lost on the demo model."""

    type: str
    bits: float
    """Stored bits a weight of the layers' matrices."""
    nats: float
    error: float
    """The standard error of `nats`."""


def planned_layer_bits(plan: Plan) -> float:
    """Stored bits a weight of the layers' matrices."""
    rows = [row for row in plan.rows if row.role in MATRICES]
    return 8 * sum(row.nbytes for row in rows) / sum(row.weights for row in rows)


def read_verified(paths: Iterable[Path]) -> tuple[VerifiedArtifact, ...]:
    """What verified artifacts' records say. InputError for one that is not verified."""
    artifacts = []
    for path in paths:
        manifest = read_manifest(path)
        verification = manifest.verification if manifest else None
        nats = _measured(verification)
        if manifest is None or nats is None:
            raise InputError(
                f"{path} has no record of a verification; run: phiquant verify {path} --against "
                "MODEL"
            )
        if verification is not None and verification.get("passed") is not True:
            raise InputError(
                f"{path} failed its verification, so that its loss says nothing; make and verify "
                "it anew"
            )
        names = frozenset(
            str(manifest.source[key]) for key in ("name", "hub_id") if manifest.source.get(key)
        )
        plan = manifest.plan
        artifacts.append(
            VerifiedArtifact(names, str(plan["target"]), str(plan["type"]), nats, path)
        )
    return tuple(artifacts)


def check_model(source: Source, measured: Iterable[VerifiedArtifact]) -> None:
    """RequestError for an artifact of another model than `source`."""
    for artifact in measured:
        if not artifact.names & {source.name, source.hub_id}:
            raise RequestError(
                f"{artifact.path} was made of {' or '.join(sorted(artifact.names)) or 'no name'}, "
                f"and `measured` takes artifacts of {source.name}; leave it out"
            )


def _measured(verification: object) -> float | None:
    """The mean divergence in a record of a verification; None if there is none."""
    value = verification
    for key in ("figures", "mean", "value"):
        value = value.get(key) if isinstance(value, Mapping) else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and value >= 0 else None  # type: ignore[arg-type, operator]


def loss_of(source: Source, plan: Plan, measured: Sequence[VerifiedArtifact] = ()) -> Loss:
    """What an artifact of `plan` of the model `source` loses."""
    for artifact in measured:
        same = artifact.names & {source.name, source.hub_id}
        if same and (artifact.target, artifact.type) == (plan.target, plan.type):
            return Loss(artifact.nats, "measured", f"measured: {artifact.path}")
    known, bits = demo_rows()[plan.target], planned_layer_bits(plan)
    alike = [row for row in known if row.type == plan.type and abs(row.bits - bits) < SAME_BITS]
    if alike:
        return Loss(min(alike, key=lambda row: abs(row.bits - bits)).nats, "demo", DEMO)
    return _expected(known, bits)


def _expected(known: Sequence[DemoRow], bits: float) -> Loss:
    """The loss on the line between the two neighbours of `bits`, or beyond the last row."""
    points = sorted(known, key=lambda row: (row.bits, row.nats))
    below = [row for row in points if row.bits <= bits]
    above = [row for row in points if row.bits > bits]
    if not below or not above:
        end = above[0] if above else below[-1]
        nats = max(end.nats, LEAST) * A_BIT ** (end.bits - bits)
        return Loss(nats, "interpolated", _told(bits, f"beyond the demo model's {end.type}"))
    low, high = below[-1], above[0]
    share = (bits - low.bits) / (high.bits - low.bits)
    first, last = (log(max(row.nats, LEAST)) for row in (low, high))
    between = f"between the demo model's {low.type} and {high.type}"
    return Loss(exp((1 - share) * first + share * last), "interpolated", _told(bits, between))


def _told(bits: float, where: str) -> str:
    return f"not measured: expected from {bits:.2f} bits a weight, {where}"


@cache
def demo_rows() -> Mapping[str, tuple[DemoRow, ...]]:
    """The shipped table: target → its types on the demo model. A type may be there twice, at other
    bits for other hardware.
    """
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        target: tuple(DemoRow(type, *map(float, figures)) for type, *figures in rows)
        for target, rows in document.items()
    }
