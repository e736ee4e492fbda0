"""`LlamaForCausalLM` and `MistralForCausalLM`: Phi-3's network under another name.

Fine-tuning tools republish Phi-3 and Phi-4 so, with queries, keys and values, and gate and up, as
matrices of their own. Where a configuration of these classes describes nothing that Phi-3's cannot
say, the model is read as what it is. Source: transformers' modeling_llama.py, modeling_mistral.py,
and the defaults of their configurations.
"""

from collections.abc import Mapping
from typing import Any

from phiquant.errors import ConfigError
from phiquant.host.shown import shown
from phiquant.phi.classes import phi3

MODEL_TYPES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"}
MISTRAL = "MistralForCausalLM"
MISTRAL_WINDOW = 4096
"""The sliding window of a Mistral whose configuration names none; null stands for none."""

WITHOUT_MEANING = ("attention_bias", "mlp_bias", "pretraining_tp")
"""Fields of these classes that say nothing once it is known that there are no biases."""


def named_class(config: Mapping[str, Any]) -> str | None:
    """The class of this module that `config` names; None for any other."""
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    if name is None:
        by_type = {model_type: name for name, model_type in MODEL_TYPES.items()}
        model_type = config.get("model_type")
        return by_type.get(model_type) if isinstance(model_type, str) else None
    return name if isinstance(name, str) and name in MODEL_TYPES else None


def as_phi3(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration of these classes says, as one of Phi-3.

    Raises ConfigError for what Phi-3's network does not have.
    """
    name = named_class(config)
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise ConfigError(f"{name} with {key} {shown(config[key])} is no Phi-3 network")
    for key in ("rope_parameters", "rope_scaling"):
        said = config.get(key)
        rope = said if isinstance(said, Mapping) else {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "longrope"):
            raise ConfigError(
                f"{name} with a rotary embedding of the type {shown(kind)} is no Phi-3 network; "
                "'default' and 'longrope' are covered"
            )
        fraction = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        if fraction not in (None, 1):
            raise ConfigError(
                f"{name} turns whole heads, and partial_rotary_factor is {shown(fraction)}"
            )
    kept = {key: value for key, value in config.items() if key not in WITHOUT_MEANING}
    window = config.get("sliding_window", MISTRAL_WINDOW) if name == MISTRAL else None
    return kept | {
        "architectures": [phi3.ARCHITECTURE],
        "model_type": phi3.MODEL_TYPE,
        "sliding_window": window,
    }
