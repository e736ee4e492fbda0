"""`phiquant inspect`."""

from pathlib import Path

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.evaluation.inspection import inspect
from phiquant.reporting.table import inspection_table


def inspect_command(path: Path, tensors: bool) -> Result:
    """Show what `path` holds."""
    inspection = inspect(path)
    return Result(inspection.as_json(), lambda: out(inspection_table(inspection, tensors)))
