"""From the words of the command line to recipes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import RequestError
from phiquant.planning.budget import Budget
from phiquant.planning.precision import PRECISIONS, Precision
from phiquant.recipe import ImatrixFiles, Quality, Recipe
from phiquant.recommendation.candidates import Wish
from phiquant.targets.table import MODULES, target


@dataclass(frozen=True, slots=True)
class ByDevice:
    """A recipe that is left to a device: what it is to be besides."""

    device: str
    wish: Wish
    quality: Quality
    rescaling: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What `quantize` and `plan` are asked for, besides the model and the destination."""

    recipes: tuple[Recipe, ...] | ByDevice
    text: CalibrationText
    imatrix: ImatrixFiles
    revision: str | None
    adapter: str | None


def by_device(
    device: str,
    to: str | None,
    precision: str | None,
    context: int | None,
    *,
    quality: str,
    rescaling: bool,
) -> ByDevice:
    """A recipe that is left to a device. Raises RequestError for words that no recipe may have."""
    named = ",".join(MODULES) if to is None else to
    possible = recipes(named, precision, [], context, quality=quality, rescaling=rescaling)
    wish = Wish(
        Wish().context if context is None else context,
        targets=None if to is None else tuple(recipe.target for recipe in possible),
        precision=cast(Precision | None, precision),
    )
    return ByDevice(device, wish, cast(Quality, quality), rescaling)


def recipes(
    to: str,
    precision: str | None,
    types: list[str],
    context: int | None,
    options: Sequence[str] = (),
    *,
    quality: str = "fast",
    rescaling: bool = True,
    budget: Budget | None = None,
) -> tuple[Recipe, ...]:
    """One recipe for each target in `to`; RequestError for words that mean nothing here.

    `precision` is None where none was given. Where only some targets have a type of their own, it
    is meant for the others. `options` are words KEY=VALUE; each goes to every target in `to` that
    has an option KEY.
    """
    names = [name.strip() for name in to.split(",") if name.strip()]
    unknown = [name for name in names if name not in MODULES]
    if unknown or not names:
        raise RequestError(
            f"expected targets among {', '.join(MODULES)}, found {', '.join(unknown) or 'none'}"
        )
    if precision is not None and precision not in PRECISIONS:
        raise RequestError(
            f"expected a precision among {', '.join(PRECISIONS)}, found {precision!r}; "
            "a format of the target's own goes to --type"
        )
    chosen = _types(names, types)
    given = _options(names, options)
    others = [name for name in names if name not in chosen] or names
    """For which the precision is meant."""
    return tuple(
        Recipe(
            name,
            cast(Precision | None, precision if name in others else None),
            chosen.get(name),
            context,
            given[name],
            cast(Quality, quality),
            budget,
            rescaling,
        )
        for name in names
    )


def calibration_text(path: Path | None, size: str) -> CalibrationText:
    """What to calibrate on; RequestError unless `size` is SEQUENCESxTOKENS."""
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", size)
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise RequestError(
            f"expected a calibration size as SEQUENCESxTOKENS (128x512), found {size!r}"
        )
    return CalibrationText(path, int(match[1]), int(match[2]))


def budget(
    bits_per_weight: float | None, max_size: str | None, max_kl: float | None
) -> Budget | None:
    """The budget that was given, if one was; each artifact has it for itself."""
    if bits_per_weight is None and max_size is None and max_kl is None:
        return None
    nbytes = None if max_size is None else _bytes(max_size)
    return Budget(bits_per_weight, nbytes, max_kl)


def _bytes(size: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]i?)?B?\s*", size, re.IGNORECASE)
    if match is None:
        raise RequestError(
            f"expected a size such as 2.2GB, 900MB, 850MiB or 87600000, found {size!r}"
        )
    prefix = (match[2] or "").upper()
    base = 1024 if prefix.endswith("I") else 1000
    return int(Decimal(match[1]) * base ** " KMGT".index(prefix[:1] or " "))


def option_words(**flags: str | float | bool | None) -> list[str]:
    """The flags that were given, as words KEY=VALUE."""
    return [
        f"{key}={str(value).lower()}"
        for key, value in flags.items()
        if value is not None and value is not False  # 0 is a value
    ]


def _options(names: list[str], words: Sequence[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    given: dict[str, tuple[tuple[str, str], ...]] = {name: () for name in names}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not value:
            raise RequestError(f"expected an option as KEY=VALUE, found {word!r}")
        takers = [name for name in names if key in target(name).options]
        if not takers:
            raise RequestError(_no_option(key, names))
        for name in takers:
            given[name] += ((key, value),)
    return given


def _no_option(key: str, names: Sequence[str]) -> str:
    """That no target in `names` has the option, and whose it is, or what there is."""
    owners = [name for name in MODULES if key in target(name).options]
    if owners:
        return f"`{key}` is an option of {' and '.join(owners)}; add {owners[0]} to --to"
    lists = (f"{name} has {', '.join(target(name).options) or 'none'}" for name in names)
    return f"there is no option {key!r}: {'; '.join(lists)}"


def _types(names: list[str], types: list[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for word in types:
        name, separator, type = word.partition("=")
        if not separator:
            if len(names) > 1:
                raise RequestError(
                    f"with several targets, say which one --type {word} is for: {names[0]}={word}"
                )
            name, type = names[0], word
        if name not in names:
            wanted = f"add {name} to --to" if name in MODULES else f"--to has {', '.join(names)}"
            raise RequestError(f"--type {word} is for a target that --to does not name; {wanted}")
        if name in chosen:
            raise RequestError(f"--type names two types for {name}: {chosen[name]} and {type}")
        chosen[name] = type
    return chosen
