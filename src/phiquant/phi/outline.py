"""What is known of a model before its weights are read: its name, dimensions and element type.

A directory that holds only `config.json` is enough. Sizes follow from it exactly, but for one
thing that only the weights can tell: whether any value is beyond the range of FP16. It is taken
that none is, which holds for every Phi that has been published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.phi.architecture import Architecture
from phiquant.phi.config import (
    model_class,
    named_quantization,
    read_architecture,
    read_config,
    refuse_quantized,
)
from phiquant.phi.source import Source
from phiquant.phi.survey import Survey

DTYPES: Mapping[str, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""What `torch_dtype` or `dtype` may say → the element type in safetensors."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A model that is known by its configuration alone."""

    source: Source
    architecture: Architecture
    survey: Survey
    """Assumed: magnitudes of 0, so that everything fits FP16."""


def read_outline(source: Source) -> Outline:
    """The outline of the model in `source`. Raises ConfigError."""
    config = read_config(source.directory)
    return outline(source, config)


def outline(source: Source, config: Mapping[str, Any]) -> Outline:
    """The outline of a model with the configuration `config`. Raises ConfigError."""
    _, config = model_class(dict(config))
    architecture = read_architecture(config)
    quantized = named_quantization(config)
    # The weights may say otherwise: those at hand, or those that are still to be fetched.
    if quantized is not None and source.hub_id is None and not has_weights(source.directory):
        raise refuse_quantized(f"config.json has {quantized}")
    named = config.get("torch_dtype") or config.get("dtype")
    dtype = DTYPES.get(str(named).removeprefix("torch."), "BF16")
    return Outline(source, architecture, assumed_survey(architecture, dtype))


def assumed_survey(architecture: Architecture, dtype: str = "BF16") -> Survey:
    """A survey as it would be of weights that all fit FP16."""
    return Survey(dict.fromkeys((weight.name for weight in architecture.weights()), 0.0), dtype)


def has_weights(directory: Path) -> bool:
    """Whether `directory` holds weights, in whatever format, beside its configuration."""
    return any(
        any(directory.glob(pattern)) for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth")
    )
