"""Every way in which a device could run a model, with what each takes, gives and loses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from phiquant.devices.device import Device, Engine
from phiquant.errors import PhiquantError, RequestError
from phiquant.host.kinds import NUMBER, WHOLE, WORD, optional, several
from phiquant.phi.outline import Outline
from phiquant.planning.footprint import Footprint, Use, looked_up
from phiquant.planning.plan import Plan
from phiquant.planning.precision import PRECISIONS, Precision, precision_of
from phiquant.recipe import Recipe
from phiquant.recommendation.losses import Loss, VerifiedArtifact, loss_of
from phiquant.targets.table import target


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of the device. Raises RequestError for what nothing can be."""

    context: int = 4096
    prompt: int | None = None
    """Tokens of the longest prompt; None for a quarter of the context."""
    min_precision: Precision | None = None
    """The least bits of a weight, those of this precision: "int8" rules 6-bit types out."""
    max_loss: float | None = None
    """The greatest loss, in nats a token."""
    min_speed: float = 10.0
    """Tokens a second that are fast enough: beyond, less loss counts more than more speed."""
    targets: tuple[str, ...] | None = None
    precision: Precision | None = None
    """The precision that it must be."""

    def __post_init__(self) -> None:
        WHOLE.check(context=self.context)
        optional(WHOLE).check(prompt=self.prompt)
        NUMBER.check(min_speed=self.min_speed)
        optional(NUMBER).check(max_loss=self.max_loss)
        optional(several(WORD)).check(targets=self.targets)
        for name, tokens in (("context", self.context), ("prompt", self.prompt)):
            if tokens is not None and tokens < 1:
                raise RequestError(
                    f"expected a positive number of tokens for `{name}`, found {tokens}"
                )
        for name, word in (("min_precision", self.min_precision), ("precision", self.precision)):
            if word is not None and word not in PRECISIONS:
                raise RequestError(
                    f"expected `{name}` among {', '.join(PRECISIONS)}, found {word!r}"
                )
        for name, limit in (("max_loss", self.max_loss), ("min_speed", self.min_speed)):
            if limit is not None and not 0 <= limit < inf:
                raise RequestError(f"expected `{name}` to be a number, 0 or more, found {limit}")
        for name in self.targets or ():
            target(name)

    def use(self, provider: str) -> Use:
        """The use that footprints are computed for."""
        return Use(self.context, self.prompt or max(1, self.context // 4), provider)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One (target, provider, type) on the device."""

    engine: Engine
    recipe: Recipe
    type: str
    nbytes: int
    """Bytes of tensors, exactly."""
    bits_per_weight: float
    footprint: Footprint
    headroom: int
    """Bytes that the device would have left; negative where it does not fit."""
    speed: float
    """Tokens a second with the cache full, expected from the bandwidth."""
    loss: Loss

    @property
    def fits(self) -> bool:
        """Whether the device has room for it."""
        return self.headroom >= 0

    @property
    def name(self) -> str:
        """Target, provider and type."""
        return f"{self.engine.target} on {self.engine.provider}, {self.type}"

    def as_json(self) -> dict[str, Any]:
        """The candidate as `recommend --json` prints it."""
        return {
            "target": self.engine.target,
            "provider": self.engine.provider,
            "precision": self.recipe.precision,
            "type": self.type,
            "recipe": self.recipe.as_json(),
            "weights": self.nbytes,
            "bits_per_weight": self.bits_per_weight,
            "memory": self.footprint.as_json(),
            "headroom": self.headroom,
            "tokens_per_second": self.speed,
            "loss": {"nats": self.loss.nats, "origin": self.loss.origin, "told": self.loss.told},
        }


@dataclass(frozen=True, slots=True)
class Ruled:
    """A form that is ruled out without looking at sizes, and why."""

    name: str
    why: str


def candidates(
    outline: Outline, device: Device, wish: Wish, measured: Sequence[VerifiedArtifact] = ()
) -> tuple[tuple[Candidate, ...], tuple[Ruled, ...]]:
    """Everything that could run, and what is ruled out without looking at sizes."""
    possible: list[Candidate] = []
    ruled = [Ruled(absent.engine, absent.why) for absent in device.absent]
    for engine in device.engines:
        if wish.targets is not None and engine.target not in wish.targets:
            continue
        name = f"{engine.target} on {engine.provider}"
        if engine.most_context is not None and wish.context > engine.most_context:
            ruled.append(Ruled(name, f"it takes at most {engine.most_context} tokens of context"))
            continue
        ruled += [
            Ruled(f"{name}, {', '.join(refused.types)}", refused.why) for refused in engine.refuses
        ]
        for recipe in _recipes(engine, wish):
            try:
                plan = target(engine.target).plan(outline.architecture, outline.survey, recipe.form)
            except PhiquantError as error:
                ruled.append(Ruled(f"{name}, {recipe.type}", str(error)))
                continue
            footprint = target(engine.target).footprint(
                plan, recipe.form, outline.architecture, wish.use(engine.provider)
            )
            loss = loss_of(outline.source, plan, measured)
            possible.append(_candidate(device, engine, recipe, plan, footprint, loss))
    return tuple(possible), tuple(dict.fromkeys(ruled))


def _recipes(engine: Engine, wish: Wish) -> Iterator[Recipe]:
    for type in (type for types in engine.types.values() for type in types):
        if wish.precision in (None, precision_of(type)):
            yield Recipe(engine.target, type=type, context=wish.context, options=engine.options)


def _candidate(  # noqa: PLR0917 (a value of each kind)
    device: Device, engine: Engine, recipe: Recipe, plan: Plan, footprint: Footprint, loss: Loss
) -> Candidate:
    read = bytes_a_token(plan) + footprint.cache
    return Candidate(
        engine=engine,
        recipe=recipe,
        type=plan.type,
        nbytes=plan.nbytes,
        bits_per_weight=plan.bits_per_weight,
        footprint=footprint,
        headroom=device.usable - footprint.needed,
        speed=device.bandwidth_gbs * 1e9 * engine.efficiency / read,
        loss=loss,
    )


def bytes_a_token(plan: Plan) -> int:
    """Bytes of weights that decoding a token reads: all but an embedding that is only looked up."""
    return sum(row.nbytes for row in plan.rows if row.source is not None) - looked_up(plan)
