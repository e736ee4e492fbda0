"""From a checkpoint's `config.json` to an `Architecture`.

Published Phi checkpoints use the classic schema (`rope_theta`, `rope_scaling`,
`partial_rotary_factor` at the top); transformers 5 saves `rope_parameters`. Both read the same.
A field that the mathematics needs is never guessed: its absence is an error that names it.
The rules are those of transformers' `Phi3Config` and `_compute_longrope_parameters`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phiquant.errors import ConfigError
from phiquant.host import foreign
from phiquant.host.shown import shown
from phiquant.phi.architecture import Architecture
from phiquant.phi.classes import llama
from phiquant.phi.classes.phi3 import ARCHITECTURE
from phiquant.phi.lora.names import CONFIG as ADAPTER
from phiquant.phi.lora.names import GIVE
from phiquant.phi.network.parts import LongRope, Rope

LONGROPE_NAMES = ("longrope", "su", "yarn")
"""The rope types that `Phi3Config` reads as LongRoPE; the last two are older spellings."""

LARGEST_COUNT = 2**31 - 1
"""What the runtimes can count to."""
MOST_LAYERS = 10_000
"""Far beyond any model; a lying number would have its tensors listed one by one."""
MOST_IDS = 1 << 21
"""The same of vocabularies, whose tokens are listed one by one."""
LEAST, GREATEST = 2.0**-126, 3.4e38
"""Real numbers are stored as float32: the range in which it has its full precision."""

QUANTIZATIONS = ("quantization_config", "quantization")
"""Fields in which transformers and mlx_lm say how weights are quantized."""
PACKED = ("bitsandbytes", "gptq", "awq", "hqq", "aqlm", "eetq")
"""Methods that store what they quantize in a form of their own: weights that are stored plain are
not quantized, whatever the configuration says."""

Config = Mapping[str, Any]


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed `config.json` of `directory`; ConfigError if absent or no JSON object."""
    path = directory / "config.json"
    if not foreign.present(path) and foreign.present(directory / ADAPTER):
        raise ConfigError(f"{directory} holds an adapter and no model; {GIVE}")
    if not foreign.present(path):
        raise ConfigError(
            f"expected a checkpoint with a config.json in {directory}, found none; "
            "give the directory that holds config.json and the *.safetensors files"
        )
    return foreign.read_object(path, foreign.CONFIG, directory)


def named_quantization(config: Config) -> str | None:
    """The field that says that the weights are quantized; None where none does.

    It may say so of weights that are not: a model that was trained with a quantized base beneath
    an adapter, and merged into the original, is saved with it.
    """
    return next((key for key in QUANTIZATIONS if config.get(key)), None)


def check_quantization(config: Config) -> None:
    """Raise ConfigError for a quantization that may be meant for weights that are stored plain."""
    for key in QUANTIZATIONS:
        said = config.get(key)
        method = said.get("quant_method") if isinstance(said, Mapping) else None
        if said and method not in PACKED:
            raise refuse_quantized(f"config.json has {key} with the method {shown(method)}")


def refuse_quantized(why: str) -> ConfigError:
    """The error for a checkpoint that is quantized; `why` says what shows it."""
    return ConfigError(
        f"this checkpoint is quantized already ({why}); start from the original BF16, FP16 or FP32 "
        "one"
    )


def model_class(config: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The class under whose name a Phi-3 network was saved, None for its own, and what `config`
    says in the terms of Phi-3's. Raises ConfigError.
    """
    name = llama.named_class(config)
    return (None, config) if name is None else (name, llama.as_phi3(config))


def read_architecture(config: Config) -> Architecture:
    """The architecture that `config` describes.

    Raises ConfigError for a model that is no `Phi3ForCausalLM`, for a field that is needed and
    missing, and for values that contradict one another.
    """
    _require_phi3(config)
    heads = _count(config, "num_attention_heads")
    kv_heads = _count(config, "num_key_value_heads", default=heads)
    hidden = _count(config, "hidden_size")
    if heads % kv_heads:
        raise ConfigError(f"{heads} attention heads cannot share {kv_heads} key-value heads evenly")
    if config.get("head_dim") is None and hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    head_size = _count(config, "head_dim", default=hidden // heads)
    layers = _count(config, "num_hidden_layers", most=MOST_LAYERS)
    max_positions = _count(config, "max_position_embeddings")
    window = config.get("sliding_window")
    return Architecture(
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate_size=_count(config, "intermediate_size"),
        vocabulary_size=_count(config, "vocab_size", most=MOST_IDS),
        norm_epsilon=_positive(config, "rms_norm_eps"),
        tied_head=bool(config.get("tie_word_embeddings", False)),
        max_positions=max_positions,
        sliding_window=None if window is None else _count(config, "sliding_window"),
        rope=_read_rope(config, head_size, max_positions),
    )


def _require_phi3(config: Config) -> None:
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    if name != ARCHITECTURE and not (name is None and config.get("model_type") == "phi3"):
        architecture = name or config.get("model_type") or "no architecture at all"
        told = architecture if isinstance(architecture, str) else shown(architecture)
        raise ConfigError(
            f"expected a {ARCHITECTURE} checkpoint (Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini), "
            f"found {told}; other architectures are not covered"
        )
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ConfigError(
            f"expected hidden_act 'silu', found {shown(activation)}; it is not covered"
        )
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise ConfigError("expected linear layers without biases, found biases in the config")


def _read_rope(config: Config, head_size: int, max_positions: int) -> Rope:
    nested = config.get("rope_parameters")
    if nested is not None and not isinstance(nested, Mapping):
        raise ConfigError(f"rope_parameters should be an object, found {shown(nested)}")
    scaling = config.get("rope_scaling")
    if scaling is not None and not isinstance(scaling, Mapping):
        raise ConfigError(f"rope_scaling should be an object or null, found {shown(scaling)}")
    if nested and scaling and _differ(nested, scaling):
        raise ConfigError(
            "the config gives the rotary embedding twice, as rope_parameters and as rope_scaling, "
            "and the two differ; take out the one that is not the model's"
        )
    merged = {
        key: config[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if config.get(key) is not None
    }
    merged |= {key: value for key, value in (nested or scaling or {}).items() if value is not None}

    fraction = _positive(merged, "partial_rotary_factor", default=1.0)
    dimensions = int(head_size * fraction)
    if fraction > 1 or dimensions % 2 or dimensions < 2:
        raise ConfigError(
            f"partial_rotary_factor {fraction} of head size {head_size} gives {dimensions} rotary "
            "dimensions; expected an even number, at most the head size"
        )
    theta = _positive(merged, "rope_theta")
    kind = merged.get("rope_type", merged.get("type", "default"))
    if kind == "default":
        return Rope(theta, dimensions)
    if kind not in LONGROPE_NAMES:
        raise ConfigError(f"expected rope type 'default' or 'longrope', found {shown(kind)}")
    return Rope(theta, dimensions, _read_longrope(config, merged, dimensions, max_positions))


def _read_longrope(config: Config, merged: Config, dimensions: int, max_positions: int) -> LongRope:
    original = _original_positions(config, merged)
    # transformers gives the ratio of the two lengths only where no factor is stated.
    factor = _positive(merged, "factor", default=max_positions / original)
    if factor <= 1.0:
        default_attention = 1.0
    elif original == 1:
        raise ConfigError("original_max_position_embeddings is 1; LongRoPE needs at least 2")
    else:
        default_attention = math.sqrt(1 + math.log(factor) / math.log(original))
    return LongRope(
        short_factors=_factors(merged, "short_factor", dimensions // 2),
        long_factors=_factors(merged, "long_factor", dimensions // 2),
        original_positions=original,
        attention_factor=_positive(merged, "attention_factor", default=default_attention),
    )


def _differ(nested: Config, scaling: Config) -> bool:
    """Whether two descriptions of a rotary embedding contradict each other."""
    first, second = (
        {"rope_type" if key == "type" else key: value for key, value in said.items()}
        for said in (nested, scaling)
    )
    kinds = {said.get("rope_type", "default") for said in (first, second)}
    return len(kinds) > 1 or any(first[key] != second[key] for key in first.keys() & second.keys())


def _original_positions(config: Config, merged: Config) -> int:
    key = "original_max_position_embeddings"
    original = _count(merged, key)
    if _count(config, key, default=original) != original:
        raise ConfigError(f"the config gives {key} twice, as {config[key]} and as {original}")
    return original


def _factors(config: Config, key: str, length: int) -> tuple[float, ...]:
    values = config.get(key)
    if not isinstance(values, list) or not all(_is_positive(value) for value in values):
        raise ConfigError(
            f"LongRoPE needs {key}, a list of positive numbers; found {shown(values)}"
        )
    if len(values) != length:
        raise ConfigError(
            f"{key} should have {length} entries, half the rotary dimensions; found {len(values)}"
        )
    return tuple(float(value) for value in values)


def _count(config: Config, key: str, default: int | None = None, most: int = LARGEST_COUNT) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"the config has no {key}, which is needed; restore the original config")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} should be a positive integer, found {shown(value)}")
    if value > most:
        raise ConfigError(f"{key} should be at most {most}, found {shown(value)}")
    return value


def _positive(config: Config, key: str, default: float | None = None) -> float:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"the config has no {key}, which is needed; restore the original config")
    if not _is_positive(value):
        raise ConfigError(
            f"{key} should be a positive number within float32's range, found {shown(value)}"
        )
    return float(value)


def _is_positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and LEAST <= value <= GREATEST  # type: ignore[operator]
