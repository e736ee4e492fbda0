"""`phiquant recommend`, and the recipe that `--device` stands for in `quantize` and `plan`."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from rich.table import Table

from phiquant.cli.console import out, out_as_is
from phiquant.cli.ending import Result
from phiquant.cli.make_line import making
from phiquant.cli.request import Asked, ByDevice
from phiquant.cli.wording import in_options
from phiquant.devices.table import THIS
from phiquant.errors import RequestError, ResourceError
from phiquant.phi.model_name import read_model_name
from phiquant.planning.precision import PRECISIONS, Precision
from phiquant.recipe import Recipe
from phiquant.recommendation.candidates import Candidate, Wish
from phiquant.recommendation.recommend import Recommendation, recommend
from phiquant.reporting.units import size

MARKS = {"measured": "", "demo": " *", "interpolated": " ~"}
KEY = (
    "Loss in nats a token. * measured on the demo model, SmolLM2-135M, which is harder to quantize "
    "than a Phi; ~ not measured, estimated from the demo model's types by bits a weight. Speed is "
    "expected from the bandwidth, with the cache full."
)


def wish(
    context: int | None, prompt: int | None, min_quality: str | None, min_speed: float, to: str
) -> Wish:
    """What is wanted, from the words of the command line. Raises RequestError."""
    precision: Precision | None = None
    nats = None
    if min_quality is not None and min_quality in PRECISIONS:
        precision = cast(Precision, min_quality)
    elif min_quality is not None:
        nats = _nats(min_quality)
    return Wish(
        context=Wish().context if context is None else context,
        prompt=prompt,
        min_precision=precision,
        max_loss=nats,
        min_speed=min_speed,
        targets=tuple(name.strip() for name in to.split(",")) if to else None,
    )


def _nats(word: str) -> float:
    try:
        nats = float(word)
    except ValueError:
        nats = -1.0
    if not 0 <= nats < float("inf"):
        raise RequestError(
            f"expected one of {', '.join(PRECISIONS)} or a number of nats a token for "
            f"--min-quality, found {word!r}"
        )
    return nats


def recommend_command(
    model: str, device: str, wish: Wish, measured: list[Path], revision: str | None
) -> Result:
    """Recommend an artifact of `model` for `device`."""
    recommendation = recommend(model, device, wish, measured=measured, revision=revision)
    again = None if measured or device == THIS else device  # else it may choose otherwise
    make = making(recommendation, again, read_model_name(model, revision).revision)
    document = recommendation.as_json()
    return Result(document, lambda: _render(recommendation, make), unfit(recommendation))


def unfit(recommendation: Recommendation) -> ResourceError | None:
    """What `--device` would end in too, where nothing fits."""
    try:
        _ = recommendation.recipe
    except ResourceError as error:
        return error
    return None


def recipes_for(model: str, asked: Asked) -> tuple[Recipe, ...]:
    """The recipes that were asked for, or the one that suits the device that was named."""
    by = asked.recipes
    if not isinstance(by, ByDevice):
        return by
    recommendation = recommend(model, by.device, by.wish, revision=asked.revision)
    return (replace(recommendation.recipe, quality=by.quality, rescaling=by.rescaling),)


def _render(recommendation: Recommendation, make: str) -> None:
    device, wish = recommendation.device, recommendation.wish
    out(
        f"{recommendation.outline.source.name} on {device.title}: "
        f"{device.usable_gib:g} GiB for a model, {device.bandwidth_gbs:g} GB/s; "
        f"{wish.context:,} tokens of context"
    )
    out(_table(recommendation))
    out(KEY)
    for candidate, said in zip(recommendation.candidates, recommendation.verdicts, strict=True):
        if candidate is not recommendation.chosen:
            out(f"{candidate.name}: {said}.")
    for ruled in recommendation.ruled:
        out(f"Ruled out: {ruled.name}: {ruled.why}.")
    if recommendation.chosen is None:
        out(
            "Nothing fits as asked. Nearest:"
            if recommendation.nearest
            else "Nothing fits, nor nearly."
        )
        for line in recommendation.nearest:
            out(f"- {in_options(line)}")
        return
    _explain(recommendation.chosen)
    out_as_is(f"Make it: {make}")


def _table(recommendation: Recommendation) -> Table:
    table = Table(
        "", "runs in", "type", "weights", "cache", "", "in use", "left", "tok/s", "loss",
        pad_edge=False, box=None,
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[3:]:
        column.justify = "right"
    for candidate in recommendation.candidates:
        memory = candidate.footprint
        left = (
            size(candidate.headroom) if candidate.headroom >= 0 else f"-{size(-candidate.headroom)}"
        )
        table.add_row(
            "→" if candidate is recommendation.chosen else "",
            f"{candidate.engine.target} {candidate.engine.provider}",
            candidate.type,
            size(candidate.nbytes),
            size(memory.cache),
            memory.cache_type,
            size(memory.needed),
            left,
            f"{candidate.speed:.3g}",
            f"{_nats_short(candidate.loss.nats)}{MARKS[candidate.loss.origin]}",
        )
    return table


def _nats_short(nats: float) -> str:
    """Two digits, one where it is next to nothing."""
    return f"{nats:.2g}" if nats >= 1e-3 or nats == 0 else f"{nats:.0e}"


def _explain(chosen: Candidate) -> None:
    memory = chosen.footprint
    released = f", {size(memory.released)} of originals released" if memory.released else ""
    terms = (
        f"cache {size(memory.cache)} ({memory.cache_type})",
        f"copies {size(memory.copies)}{released}",
        f"working {size(memory.working)}",
        f"runtime {size(memory.runtime)}",
    )
    out(
        f"Choice: {chosen.name}. {chosen.nbytes:,} bytes of weights; {size(memory.needed)} in use: "
        f"{', '.join(terms)}."
    )
    out(f"Loss: {chosen.loss.nats:.2g} nats a token, {chosen.loss.told}.")
    share = f"{100 * chosen.engine.efficiency:.0f}% of the bandwidth"
    out(f"Speed: {chosen.speed:.3g} tokens/s at {share}; {chosen.engine.basis}.")
