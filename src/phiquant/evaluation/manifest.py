"""`phiquant.json`: what stands in every artifact about where it came from and what it lost.

    schema        1
    hash          the hash function of `source` and `files`
    made          when (UTC), with which phiquant, Python and NumPy, on what system
    source        the checkpoint: name, hub id and revision where known, BLAKE3 of its weights; the
                  same of the adapter over it, and by which settings that was added
    recipe        what was asked for, and what to calibrate on
    plan          target, type, bytes, bits per weight, notes, and one row a tensor
    files         BLAKE3 of the artifact's own files, this one and README.md left out
    verification  the figures and the verdict, null until the artifact is verified

A record that is read back may be anyone's: it is checked to the depth that is used here, and
what is not understood is kept as it is.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.host.hashes import hash_files
from phiquant.host.shown import shown
from phiquant.host.staging import write_text
from phiquant.phi.checkpoint import Adapter
from phiquant.phi.front_matter import CARD, front_matter
from phiquant.phi.source import Source
from phiquant.planning.plan import Plan
from phiquant.recipe import Recipe

NAME = "phiquant.json"
LICENSE = re.compile(r"license:[ \t]*([\w.+-]+)")
SCHEMA = 1
HASH = "BLAKE3"
REMEDY = "remove it to treat the artifact as one by another tool"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of one artifact, as plain JSON values under their keys."""

    made: Document
    source: Document
    recipe: Document
    plan: Document
    files: Mapping[str, str]
    verification: Document | None = None

    @classmethod
    def describe(
        cls,
        source: Source,
        hashes: Mapping[str, str],
        recipe: Recipe,
        plan: Plan,
        calibration: Document | None = None,
        *,
        adapter: Adapter | None = None,
    ) -> Self:
        """The record of an artifact that is being made.

        `hashes` are of the source's files; `calibration` is the text and the importance matrix
        that were asked for.
        """
        return cls(
            made=versions(),
            source={
                "name": source.name,
                "hub_id": source.hub_id,
                "revision": source.revision,
                "license": license_of(source.directory),
                "files": dict(hashes),
                **({} if adapter is None else {"adapter": _described(adapter)}),
            },
            recipe=recipe.as_json() | {"calibration": calibration},
            plan=plan.as_json(),
            files={},
        )

    def with_files(self, directory: Path, known: Mapping[str, str]) -> Self:
        """The same with the hashes of the files in `directory`; `known` ones are not read."""
        names = sorted(
            path
            for path in directory.iterdir()
            if path.is_file() and path.name not in (NAME, CARD) and path.name[0] != "."
        )
        unknown = [path for path in names if path.name not in known]
        hashes = {**known, **hash_files(unknown)}
        return replace(self, files={path.name: hashes[path.name] for path in names})

    def with_verification(self, verification: Document) -> Self:
        """The same with the result of a verification."""
        return replace(self, verification=dict(verification))

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return {"schema": SCHEMA, "hash": HASH, **asdict(self)}

    def write(self, directory: Path) -> None:
        """Write it into `directory`, whole or not at all."""
        write_text(directory / NAME, json.dumps(self.as_json(), indent=1) + "\n")


def _described(adapter: Adapter) -> dict[str, Any]:
    source = adapter.source
    named = {"name": source.name, "hub_id": source.hub_id, "revision": source.revision}
    return named | {"settings": dict(adapter.settings)}


def license_of(directory: Path) -> str | None:
    """The licence that the front matter of a model's README.md names ("mit"), if it does."""
    lines = front_matter(directory).split("\n")
    named = next(filter(None, map(LICENSE.fullmatch, lines)), None)
    return named[1] if named else None


def versions() -> dict[str, str]:
    """When, and with what."""
    from phiquant import __version__

    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "phiquant": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def read_manifest(directory: Path) -> Manifest | None:
    """The record in `directory`, None if there is none.

    Raises ArtifactError for one that is malformed or of a later schema.
    """
    path = directory / NAME
    if not foreign.present(path):
        return None
    return _checked(path, foreign.read_object(path, foreign.RECORD, directory, REMEDY))


def _checked(path: Path, document: Document) -> Manifest:
    def refuse(fault: str) -> ArtifactError:
        return ArtifactError(f"{path} is no record that phiquant wrote: {fault}; {REMEDY}")

    schema = document.get("schema")
    if schema != SCHEMA:
        raise refuse(f"expected schema {SCHEMA}, found {shown(schema)}")
    if document.get("hash") != HASH:
        raise refuse(f"expected {HASH} hashes, found {shown(document.get('hash'))}")
    for key in ("made", "source", "recipe", "plan", "files"):
        if not isinstance(document.get(key), dict):
            raise refuse(f"{key} should be an object, found {shown(document.get(key))}")
    if not _is_plan(document["plan"]):
        raise refuse("plan should have a target, a type, sizes and rows")
    files = document["files"]
    strange = not all(map(foreign.is_plain_name, files))
    if strange or not all(isinstance(digest, str) for digest in files.values()):
        raise refuse("files should map names in this directory to hashes")
    if not isinstance(document.get("verification"), dict | None):
        raise refuse("verification should be an object or null")
    return Manifest(
        document["made"],
        document["source"],
        document["recipe"],
        document["plan"],
        files,
        document.get("verification"),
    )


def _is_plan(plan: Document) -> bool:
    """Whether the plan has what a model card is written from."""
    texts = all(isinstance(plan.get(key), str) for key in ("target", "type"))
    numbers = all(isinstance(plan.get(key), int | float) for key in ("nbytes", "bits_per_weight"))
    rows, notes = plan.get("rows"), plan.get("notes", [])
    if not texts or not numbers or not isinstance(rows, list) or not isinstance(notes, list):
        return False
    return all(
        isinstance(row, dict)
        and isinstance(row.get("grid"), str)
        and isinstance(row.get("nbytes"), int)
        and isinstance(row.get("role"), str | None)
        for row in rows
    )
