"""From a model and a device to an artifact, with the reasons."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from phiquant.devices.device import Device
from phiquant.devices.table import find_device
from phiquant.errors import RequestError, ResourceError
from phiquant.host.kinds import PLACE, instance, optional, several
from phiquant.phi.family import find_outline
from phiquant.phi.outline import Outline
from phiquant.recipe import Recipe
from phiquant.recommendation.candidates import Candidate, Ruled, Wish, candidates
from phiquant.recommendation.choice import choose, verdict
from phiquant.recommendation.losses import check_model, read_verified
from phiquant.recommendation.nearest import nearest

DEVICE = instance(
    (str, os.PathLike, Device),
    "a device",
    "give a name that `phiquant devices` lists, `this`, a TOML file, or a Device",
)
WISH = optional(instance(Wish, "a Wish", "give Wish(context=4096), for instance"))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The artifact to make of a model for a device, and all candidates that it was chosen from."""

    outline: Outline
    device: Device
    wish: Wish
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    verdicts: tuple[str, ...]
    """One for each candidate, in the same order."""
    ruled: tuple[Ruled, ...]
    nearest: tuple[str, ...]
    """Sentences on what would fit, where nothing was chosen."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the choice. ResourceError, with what would fit, if there is none."""
        if self.chosen is None:
            raise ResourceError(
                f"{self.outline.source.name} does not fit {self.device.title} as asked: nothing of "
                f"it runs in {self.device.usable_gib:g} GiB with {self.wish.context} tokens of "
                f"context. {'; '.join(self.nearest) or 'Nor does any other Phi'}"
            )
        return self.chosen.recipe

    def as_json(self) -> dict[str, Any]:
        """The document of `recommend --json`."""
        return {
            "model": self.outline.source.name,
            "device": self.device.as_json(),
            "wish": asdict(self.wish),
            "chosen": None if self.chosen is None else self.chosen.as_json(),
            "candidates": [
                candidate.as_json() | {"verdict": said}
                for candidate, said in zip(self.candidates, self.verdicts, strict=True)
            ],
            "ruled_out": [asdict(candidate) for candidate in self.ruled],
            "nearest": list(self.nearest),
        }


def recommend(
    model: str | os.PathLike[str],
    device: str | os.PathLike[str] | Device,
    wish: Wish | None = None,
    *,
    measured: Sequence[str | os.PathLike[str]] = (),
    revision: str | None = None,
) -> Recommendation:
    """What to make of `model` for `device`.

    `model` is a directory with a `config.json` (weights are not needed and not read), the name of
    a published Phi, or a hub id; `device` a name of the table, `this`, a TOML file, or a Device.
    `measured` are verified artifacts of the model. Raises RequestError or InputError.
    """
    DEVICE.check(device=device)
    WISH.check(wish=wish)
    several(PLACE).check(measured=measured)
    outline = find_outline(model, revision)
    on = device if isinstance(device, Device) else find_device(os.fspath(device))
    asked = _within(wish or Wish(), outline, given=wish is not None)
    paths = [Path(path) for path in measured]
    verified = read_verified(paths)
    check_model(outline.source, verified)
    possible, ruled = candidates(outline, on, asked, verified)
    chosen = choose(possible, asked)
    instead = () if chosen is not None else tuple(nearest(outline, on, asked, possible))
    said = tuple(verdict(candidate, chosen, asked) for candidate in possible)
    return Recommendation(outline, on, asked, chosen, possible, said, ruled, instead)


def _within(wish: Wish, outline: Outline, *, given: bool) -> Wish:
    """The wish, if the model reaches its context; the default context is cut to the model's."""
    longest = outline.architecture.max_positions
    if wish.context <= longest:
        return wish
    if given and wish.context != Wish().context:
        raise RequestError(
            f"{outline.source.name} is made for {longest} tokens, and `context` asks for "
            f"{wish.context}"
        )
    return replace(wish, context=longest)
