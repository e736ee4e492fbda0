"""MLX artifacts of tiny checkpoints, written band by band."""

from tiny_artifacts import SHAPE, some_tokens, tiny_source, write_bands

from phiquant.recipe import Recipe
from phiquant.targets.mlx import TARGET

__all__ = ["BAND", "SHAPE", "some_tokens", "tiny_source", "write_artifact"]

BAND = 48
"""Rows at a time: divides none of the tiny shapes' row counts evenly."""


def write_artifact(checkpoint, directory, **asked):
    """Write what is `asked` for; returns the plan."""
    return write_bands(TARGET, Recipe("mlx", **asked), checkpoint, directory, BAND)
