"""OpenVINO artifacts of tiny checkpoints, written band by band, and what their plugin runs."""

from tiny_artifacts import SHAPE, some_tokens, tiny_source, write_bands

from phiquant.recipe import Recipe
from phiquant.targets.openvino import TARGET

__all__ = ["BAND", "SHAPE", "operations", "some_tokens", "tiny_source", "write_artifact"]

BAND = 49
"""Rows at a time: odd, so that bands of 4-bit zero points would share bytes."""


def write_artifact(checkpoint, directory, **asked):
    """Write what is `asked` for; returns the plan."""
    return write_bands(TARGET, Recipe("openvino", **asked), checkpoint, directory, BAND)


def operations(runner):
    """The nodes of a runner's compiled model: the plugin's own description, and the `shape`."""
    return [
        {name: value.astype(str) for name, value in node.get_rt_info().items()}
        | {"shape": str(node.get_output_partial_shape(0)) if node.get_output_size() else ""}
        for node in runner._compiled.get_runtime_model().get_ordered_ops()
    ]
