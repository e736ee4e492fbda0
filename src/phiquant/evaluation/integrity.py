"""Are the artifact's files the ones that were written?"""

from collections.abc import Iterator
from pathlib import Path

from phiquant.evaluation.check import Check, failed, passed
from phiquant.evaluation.manifest import read_manifest
from phiquant.host.cores import cores
from phiquant.host.hashes import hash_files
from phiquant.phi.listed import listed


def check_files(path: Path) -> Iterator[Check]:
    """Compare the files of the directory `path` with the hashes in its record, where it has one;
    for a file, those of its directory, where the record there lists it.

    An artifact by another tool has none, and no check.
    """
    alone = not path.is_dir()
    directory = path.parent if alone else path
    manifest = read_manifest(directory)
    if manifest is None or not manifest.files or (alone and path.name not in manifest.files):
        return
    missing = [name for name in manifest.files if not (directory / name).is_file()]
    if missing:
        yield failed("files", f"missing, though recorded: {listed(missing)}")
        return
    hashes = hash_files((directory / name for name in manifest.files), threads=cores())
    changed = [name for name, digest in manifest.files.items() if hashes[name] != digest]
    if changed:
        yield failed("files", f"changed since they were written: {listed(changed)}")
        return
    count = "1 file has" if len(hashes) == 1 else f"all {len(hashes)} files have"
    yield passed("files", f"{count} the BLAKE3 that was recorded")
