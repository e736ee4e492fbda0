"""The table of targets: one line a runtime."""

from importlib import import_module
from typing import Any

from phiquant.errors import RequestError
from phiquant.targets.importance import ImportanceFiles
from phiquant.targets.target import Target

MODULES = {
    "gguf": "phiquant.targets.gguf",
    "mlx": "phiquant.targets.mlx",
    "onnx": "phiquant.targets.onnx",
    "openvino": "phiquant.targets.openvino",
}
DEFAULT = "gguf"
"""The target of a request that names none: its artifacts run on most devices."""


def target(name: str) -> Target[Any]:
    """The target called `name`, its folder imported on first use."""
    if name not in MODULES:
        raise RequestError(f"expected `target` among {', '.join(MODULES)}, found {name!r}")
    module: Target[Any] = import_module(MODULES[name]).TARGET
    return module


def targets() -> tuple[Target[Any], ...]:
    """Every target, in the order of the table."""
    return tuple(target(name) for name in MODULES)


def is_listed(candidate: Target[Any]) -> bool:
    """Whether it is a target of this table, which another process finds by its name."""
    return candidate.name in MODULES and target(candidate.name) is candidate


def importance_files() -> ImportanceFiles:
    """How importance matrices are read and written: by the target whose runtime has them."""
    return next(listed.importance for listed in targets() if listed.importance is not None)
