"""The table of targets: one line a runtime."""

from importlib import import_module

from phiquant.errors import RequestError
from phiquant.targets.target import Target

MODULES = {
    "gguf": "phiquant.targets.gguf",
    "mlx": "phiquant.targets.mlx",
    "onnx": "phiquant.targets.onnx",
    "openvino": "phiquant.targets.openvino",
}


def target(name: str) -> Target:
    """The target called `name`, its folder imported on first use."""
    if name not in MODULES:
        raise RequestError(f"there is no target {name!r}; choose among: {', '.join(MODULES)}")
    module: Target = import_module(MODULES[name]).TARGET
    return module


def targets() -> tuple[Target, ...]:
    """Every target, in the order of the table."""
    return tuple(target(name) for name in MODULES)
