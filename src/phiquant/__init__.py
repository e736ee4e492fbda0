"""Quantize Microsoft Phi models for the runtimes that run them, and measure the loss.

    from pathlib import Path
    from phiquant import Recipe, quantize, verify

    (made,) = quantize("microsoft/Phi-4-mini-instruct", [Recipe("gguf")], Path("phi-4-mini-q4"))
    found = verify(made.path, Path("Phi-4-mini-instruct"))

Each public name is imported when it is first used, so that `import phiquant` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phiquant.errors import PhiquantError
    from phiquant.evaluation.inspection import inspect
    from phiquant.evaluation.verification import verify
    from phiquant.job.pipeline import plan, quantize
    from phiquant.phi.checkpoint import Checkpoint
    from phiquant.recipe import Budget, Recipe
    from phiquant.recommendation.recommend import recommend

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Checkpoint",
    "PhiquantError",
    "Recipe",
    "inspect",
    "plan",
    "quantize",
    "recommend",
    "verify",
]

_HOMES = {
    "Budget": "phiquant.recipe",
    "Checkpoint": "phiquant.phi.checkpoint",
    "PhiquantError": "phiquant.errors",
    "Recipe": "phiquant.recipe",
    "inspect": "phiquant.evaluation.inspection",
    "plan": "phiquant.job.pipeline",
    "quantize": "phiquant.job.pipeline",
    "recommend": "phiquant.recommendation.recommend",
    "verify": "phiquant.evaluation.verification",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phiquant' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
