"""The text files of an OpenVINO artifact: the checkpoint's own where the tools read those.

`config.json` is the checkpoint's without anything that would have code imported;
`generation_config.json` names every token that ends a text; `openvino_config.json` says to
optimum-intel what the weights are, and by which transformers the model was saved. The tokenizer's
files are there for optimum-intel, whose pipelines take transformers' tokenizer; openvino_genai
takes the two tokenizer models.
"""

import json
from collections.abc import Mapping
from typing import Any

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.targets.openvino.profiles import Profile
from phiquant.targets.tokenizer_files import read_tokenizer_files

LEFT_OUT = ("auto_map", "_name_or_path", "vision_config")
TRANSFORMERS = "5.23.0"
"""The version whose `Phi3ForCausalLM` the reference forward was compared with; for a checkpoint
that does not say which version saved it."""


def text_files(asked: Profile, checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, bytes]:
    """File name → content. Raises TokenizerError for a tokenizer that will not do."""
    taken = read_tokenizer_files(checkpoint)
    special = tokenizer.special
    roles = {f"{role}_token_id": getattr(special, role) for role in ("bos", "pad")}
    generation = json.loads(taken.files.get("generation_config.json", b"{}"))
    generation |= {role: number for role, number in roles.items() if number is not None}
    generation |= {"eos_token_id": list(special.ends)}
    config = {key: value for key, value in checkpoint.config.items() if key not in LEFT_OUT}
    config |= {"eos_token_id": list(special.ends)} if special.ends else {}
    files = {
        "config.json": _json(config),
        "generation_config.json": _json(generation),
        "openvino_config.json": _json(_openvino_config(asked, checkpoint.config)),
    }
    templates = dict(special.chat_templates)
    if "default" in templates:
        files["chat_template.jinja"] = templates["default"].encode()
    return dict(taken.files) | files


def _openvino_config(asked: Profile, config: Mapping[str, Any]) -> dict[str, Any]:
    kind = asked.kind
    version = config.get("transformers_version")
    content: dict[str, Any] = {
        "dtype": asked.type if kind is None else f"int{kind.bits}",
        "input_info": None,
        "save_onnx_model": False,
        "transformers_version": version if isinstance(version, str) else TRANSFORMERS,
    }
    if kind is not None:
        content["quantization_config"] = {
            "bits": kind.bits,
            "sym": kind.symmetric,
            "group_size": kind.group or -1,
            "ratio": asked.ratio,
            "quant_method": "default",
            "dtype": f"int{kind.bits}",
        }
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
