"""`config.json` of an MLX artifact: written for mlx_lm, and read back the way mlx_lm reads it.

Written: the checkpoint's config in the classic field names that mlx_lm's phi3 knows (it ignores
`rope_parameters`), without anything that would have code run, plus `quantization` as
mlx_lm.convert leaves it: defaults, and an entry by module path for each layer that differs.

Read: what mlx_lm computes, which is not always what the file says. It derives the head size
from `hidden_size`, attends to all earlier tokens whatever `sliding_window` says, and knows only
its own LongRoPE (see the module `longrope`).

Source: `ModelArgs` in mlx_lm/models/phi3.py, `quantize_model` and `load_model` in mlx_lm/utils.py
(0.32).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from phiquant.errors import ConfigError
from phiquant.host.shown import shown
from phiquant.phi.architecture import Architecture
from phiquant.phi.classes.phi3 import ARCHITECTURE
from phiquant.phi.config import read_architecture
from phiquant.phi.network.parts import LongRope
from phiquant.phi.soundness import fault_of
from phiquant.planning.plan import PlanRow
from phiquant.targets.mlx.formats import Affine
from phiquant.targets.mlx.longrope import (
    ServedLengths,
    kept_longrope,
    kept_originals,
    rope_fields,
    runtime_attention_factor,
)

LEFT_OUT = (
    "auto_map",  # names Python files to import
    "model_file",  # the same, for mlx_lm
    "quantize_activations",
    "rope_parameters",  # said in classic fields instead
    "rope_traditional",
    "dtype",  # said as torch_dtype, which mlx_lm reads
    "_name_or_path",
    "vision_config",
)


def check_supported(architecture: Architecture) -> None:
    """Raise ConfigError where mlx_lm would compute something else than the model."""
    expected = architecture.hidden_size // architecture.heads
    if architecture.head_size != expected or architecture.hidden_size % architecture.heads:
        raise ConfigError(
            f"mlx_lm takes the head size to be hidden_size / heads = {expected}, and this model "
            f"has head_dim {architecture.head_size}; choose the target gguf"
        )


def artifact_config(
    config: Mapping[str, Any],
    architecture: Architecture,
    served: ServedLengths,
    parameter_dtype: str,
    ends: Sequence[int],
) -> dict[str, Any]:
    """The checkpoint's `config` in mlx_lm's terms, without `quantization`.

    `parameter_dtype` is mlx_lm's name ("bfloat16"); `ends` are the tokens that end a generation.
    """
    written = {key: value for key, value in config.items() if key not in LEFT_OUT}
    written |= rope_fields(architecture, served)
    written |= {
        "architectures": [ARCHITECTURE],
        "model_type": "phi3",
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "intermediate_size": architecture.intermediate_size,
        "vocab_size": architecture.vocabulary_size,
        "rms_norm_eps": architecture.norm_epsilon,
        "tie_word_embeddings": architecture.tied_head,
        "torch_dtype": parameter_dtype,
    }
    if ends:
        written["eos_token_id"] = list(ends)
    originals = kept_originals(architecture, served)
    if originals:
        written["phiquant"] = originals
    return dict(sorted(written.items()))


def quantization_entry(
    kind: Affine, rows: Iterable[tuple[PlanRow, Affine | None]]
) -> dict[str, Any]:
    """The `quantization` entry: the type's defaults, then each module that differs.

    `rows` are the weight matrices with the group and bits that each is stored with (None: not
    quantized, which needs no entry, because mlx_lm goes by the stored scales).
    """
    entry: dict[str, Any] = _parameters(kind)
    for row, stored in rows:
        if stored is not None and stored != kind:
            entry[row.output] = _parameters(stored)
    return entry


def _parameters(kind: Affine) -> dict[str, Any]:
    return {"group_size": kind.group, "bits": kind.bits, "mode": "affine"}


def runtime_architecture(config: Mapping[str, Any]) -> Architecture:
    """The network that mlx_lm builds from `config`.

    Where the model has LongRoPE, both lists of factors are the one that the runtime uses, so that
    a forward pass with the result is right at every length. Raises ConfigError for what is no
    Phi-3 or not covered.
    """
    classic = {
        key: value
        for key, value in config.items()
        if key not in ("quantization", "quantization_config", "rope_parameters", "head_dim")
    } | {
        "sliding_window": None,
        "rope_theta": config.get("rope_theta", 10000.0),
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        "max_position_embeddings": config.get("max_position_embeddings", 131072),
        "rope_scaling": None,
    }
    plain = read_architecture(classic)
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping) or scaling.get("type") not in ("longrope", "su", "linear"):
        return plain
    if scaling["type"] == "linear":
        raise ConfigError("expected rope_scaling of type 'longrope' or none, found 'linear'")
    kept = kept_longrope(config)
    architecture = replace(
        plain,
        max_positions=kept.get("max_positions", plain.max_positions),
        rope=replace(plain.rope, long=_runtime_longrope(config, plain, kept)),
    )
    fault = fault_of(architecture)
    if fault is not None:
        raise ConfigError(f"config.json describes no network: {fault}")
    return architecture


def _runtime_longrope(
    config: Mapping[str, Any], plain: Architecture, kept: Mapping[str, Any]
) -> LongRope:
    factors = config["rope_scaling"].get("long_factor")
    half = plain.rope.dimensions // 2
    if not isinstance(factors, list) or len(factors) != half:
        raise ConfigError(f"rope_scaling.long_factor should be a list of {half} numbers")
    original = config.get("original_max_position_embeddings", 4096)
    if not all(isinstance(number, int | float) for number in (*factors, original)) or original < 2:
        raise ConfigError(
            "rope_scaling.long_factor should be a list of numbers, and the original length at "
            f"least 2; found {shown(factors)} and {shown(original)}"
        )
    used = tuple(float(factor) for factor in factors)
    return LongRope(
        short_factors=used,
        long_factors=used,
        original_positions=int(kept.get("original_positions", original)),
        attention_factor=runtime_attention_factor(original, plain.max_positions),
    )
