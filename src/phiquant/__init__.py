"""Quantize Microsoft Phi models for the runtimes that run them, and measure the loss.

    from phiquant import Recipe, quantize, verify

    (made,) = quantize("microsoft/Phi-4-mini-instruct", Recipe("gguf"), "phi-4-mini-q4")
    measured = verify(made.path, "microsoft/Phi-4-mini-instruct")
    print(measured.passed, measured.figures)

Each public name is imported when it is first used, so that `import phiquant` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phiquant.calibration.calibration_text import CalibrationText
    from phiquant.devices.device import Absent, Device, Engine
    from phiquant.errors import (
        ArtifactError,
        CheckpointError,
        InputError,
        MissingDependency,
        PhiquantError,
        RequestError,
        ResourceError,
    )
    from phiquant.evaluation.inspection import Inspection, inspect
    from phiquant.evaluation.settings import Settings
    from phiquant.evaluation.text import EvaluationText
    from phiquant.evaluation.truth import ReferenceFigures
    from phiquant.evaluation.verification import Verification, verify
    from phiquant.job.making import Made, carry_out, quantize
    from phiquant.job.prospect import Prospect, plan
    from phiquant.phi.checkpoint import Checkpoint
    from phiquant.planning.budget import Budget
    from phiquant.progress import Progress
    from phiquant.recipe import ImatrixFiles, Recipe
    from phiquant.recommendation.candidates import Wish
    from phiquant.recommendation.recommend import Recommendation, recommend

__version__ = "0.1.0"

__all__ = [
    "Absent",
    "ArtifactError",
    "Budget",
    "CalibrationText",
    "Checkpoint",
    "CheckpointError",
    "Device",
    "Engine",
    "EvaluationText",
    "ImatrixFiles",
    "InputError",
    "Inspection",
    "Made",
    "MissingDependency",
    "PhiquantError",
    "Progress",
    "Prospect",
    "Recipe",
    "Recommendation",
    "ReferenceFigures",
    "RequestError",
    "ResourceError",
    "Settings",
    "Verification",
    "Wish",
    "carry_out",
    "inspect",
    "plan",
    "quantize",
    "recommend",
    "verify",
]

_HOMES = {
    "Absent": "phiquant.devices.device",
    "ArtifactError": "phiquant.errors",
    "Budget": "phiquant.planning.budget",
    "CalibrationText": "phiquant.calibration.calibration_text",
    "Checkpoint": "phiquant.phi.checkpoint",
    "CheckpointError": "phiquant.errors",
    "Device": "phiquant.devices.device",
    "Engine": "phiquant.devices.device",
    "ImatrixFiles": "phiquant.recipe",
    "InputError": "phiquant.errors",
    "Inspection": "phiquant.evaluation.inspection",
    "Made": "phiquant.job.making",
    "MissingDependency": "phiquant.errors",
    "PhiquantError": "phiquant.errors",
    "Progress": "phiquant.progress",
    "Prospect": "phiquant.job.prospect",
    "Recipe": "phiquant.recipe",
    "Recommendation": "phiquant.recommendation.recommend",
    "ReferenceFigures": "phiquant.evaluation.truth",
    "RequestError": "phiquant.errors",
    "ResourceError": "phiquant.errors",
    "Settings": "phiquant.evaluation.settings",
    "EvaluationText": "phiquant.evaluation.text",
    "Verification": "phiquant.evaluation.verification",
    "Wish": "phiquant.recommendation.candidates",
    "carry_out": "phiquant.job.making",
    "inspect": "phiquant.evaluation.inspection",
    "plan": "phiquant.job.prospect",
    "quantize": "phiquant.job.making",
    "recommend": "phiquant.recommendation.recommend",
    "verify": "phiquant.evaluation.verification",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phiquant' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
