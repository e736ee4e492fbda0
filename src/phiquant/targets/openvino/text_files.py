"""The text files of an OpenVINO artifact: the checkpoint's own where the tools read those.

`config.json` is the one for clients (see `client_config`); `generation_config.json` names every
token that ends a text; `openvino_config.json` says to optimum-intel what the weights are. The
tokenizer's files are there for optimum-intel, whose pipelines take transformers' tokenizer;
openvino_genai takes the two tokenizer models.
"""

import json
from collections.abc import Mapping
from typing import Any

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.planning.plan import Plan
from phiquant.targets.client_config import client_config
from phiquant.targets.openvino.form import OpenVinoForm
from phiquant.targets.tokenizer_files import read_tokenizer_files


def text_files(
    plan: Plan, form: OpenVinoForm, checkpoint: Checkpoint, tokenizer: Tokenizer
) -> dict[str, bytes]:
    """File name → content. Raises TokenizerError for a tokenizer that will not do."""
    taken = read_tokenizer_files(checkpoint)
    special = tokenizer.special
    roles = {f"{role}_token_id": getattr(special, role) for role in ("bos", "pad")}
    generation = json.loads(taken.files.get("generation_config.json", b"{}"))
    generation |= {role: number for role, number in roles.items() if number is not None}
    generation |= {"eos_token_id": list(special.ends)}
    files = {
        "config.json": _json(client_config(checkpoint)),
        "generation_config.json": _json(generation),
        "openvino_config.json": _json(_openvino_config(plan, form)),
    }
    templates = dict(special.chat_templates)
    if "default" in templates:
        files["chat_template.jinja"] = templates["default"].encode()
    return dict(taken.files) | files


def _openvino_config(plan: Plan, form: OpenVinoForm) -> dict[str, Any]:
    kind = form.kind
    if kind is None:
        return {"dtype": form.type, "input_info": None, "save_onnx_model": False}
    return {
        "dtype": f"int{kind.bits}",
        "input_info": None,
        "quantization_config": {
            "bits": kind.bits,
            "sym": kind.symmetric,
            "group_size": kind.group or -1,
            "ratio": form.ratio,
            "quant_method": "default",
            "weight_format": f"int{kind.bits}",
        },
        "save_onnx_model": False,
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
