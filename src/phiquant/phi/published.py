"""The table of the published Phi models (family.toml), and their hub ids by a short name."""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "family.toml"


@cache
def published() -> tuple[Mapping[str, Any], ...]:
    """The models of the table: hub id, and the fields of the configuration that give sizes."""
    return tuple(tomllib.loads(TABLE.read_text(encoding="utf-8")).values())


def published_id(word: str) -> str | None:
    """The hub id of the published model that `word` names: its id, or the id's last part.

    Upper and lower case are the same. None for a word that names no published model.
    """
    wanted = word.removeprefix("microsoft/").lower()
    ids = [str(model["hub"]) for model in published()]
    return next((hub for hub in ids if hub.rpartition("/")[2].lower() == wanted), None)


def near(word: str) -> tuple[str, ...]:
    """The names of published models that `word` may have been meant for, the nearest first."""
    names = {str(model["hub"]).rpartition("/")[2].lower(): model["hub"] for model in published()}
    close = get_close_matches(word.removeprefix("microsoft/").lower(), names, 3, 0.6)
    return tuple(str(names[name]).rpartition("/")[2] for name in close)
