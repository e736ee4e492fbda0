"""ONNX artifacts of tiny checkpoints, written band by band."""

from mlx_tiny import BAND, some_tokens, tiny_source

from phiquant.phi.survey import survey
from phiquant.recipe import Recipe
from phiquant.targets.onnx import TARGET

__all__ = ["some_tokens", "tiny_source", "write_artifact"]


def write_artifact(checkpoint, directory, type=None, band=BAND, **options):
    """Plan, encode and write; returns the plan."""
    recipe = Recipe("onnx", type=type, options=tuple((k, str(v)) for k, v in options.items()))
    plan = TARGET.plan(checkpoint.architecture, survey(checkpoint), recipe.form)
    directory.mkdir()
    with TARGET.writer(plan, checkpoint, recipe.form, directory) as writer:
        for row in plan.rows:
            if row.source is None:
                continue
            grid = TARGET.grids[row.grid]
            rows = row.shape[0] if len(row.shape) == 2 else 1
            for first in reversed(range(0, rows, band)):
                if len(row.shape) == 2:
                    weights = checkpoint.weight(row.source, first, first + band)
                else:
                    weights = checkpoint.weight(row.source)[None]
                writer.write(row, first, grid.encode(weights))
    return plan
