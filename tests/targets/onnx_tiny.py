"""ONNX artifacts of tiny checkpoints, written band by band."""

from mlx_tiny import BAND
from tiny_artifacts import some_tokens, tiny_source, write_bands

from phiquant.recipe import Recipe
from phiquant.targets.onnx import TARGET

__all__ = ["some_tokens", "tiny_source", "write_artifact"]


def write_artifact(checkpoint, directory, type=None, band=BAND, **options):
    """Write `type` with `options`; returns the plan."""
    recipe = Recipe("onnx", type=type, options=tuple((k, str(v)) for k, v in options.items()))
    return write_bands(TARGET, recipe, checkpoint, directory, band)
