"""`phiquant clean`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.errors import InputError
from phiquant.host.remains import Remains, remains_in, remove
from phiquant.reporting.units import size


def clean_command(directory: Path, *, dry_run: bool, keep_journals: bool) -> Result:
    """Remove what dead jobs left in `directory`; with `dry_run`, only list it."""
    if not directory.is_dir():
        raise InputError(f"expected a directory at {directory}, found none")
    told = [(each, _fate(each, dry_run, keep_journals)) for each in remains_in(directory)]
    document = {
        "directory": str(directory),
        "remains": [
            {
                "path": str(each.path),
                "kind": each.kind,
                "bytes": each.nbytes,
                "alive": each.alive,
                "fate": fate,
            }
            for each, fate in told
        ],
        "bytes_removed": sum(each.nbytes for each, fate in told if fate == REMOVED),
    }
    return Result(document, lambda: _render(directory, told))


IN_USE, KEPT, REMOVED, WOULD_GO = "in use", "kept", "removed", "would be removed"


def _fate(remains: Remains, dry_run: bool, keep_journals: bool) -> str:
    if remains.alive:
        return IN_USE
    if keep_journals and remains.resumable:
        return KEPT
    if dry_run:
        return WOULD_GO
    return REMOVED if remove(remains) else IN_USE


def _render(directory: Path, told: Sequence[tuple[Remains, str]]) -> None:
    if not told:
        out(f"No job left anything in {directory.resolve()}.")
        return
    out(f"In {directory.resolve()}:")
    table = Table("path", "what", "size", "")
    for each, fate in told:
        what = "journal: the same command would go on with it" if each.resumable else each.kind
        table.add_row(each.path.name, what, size(each.nbytes), fate)
    out(table)
