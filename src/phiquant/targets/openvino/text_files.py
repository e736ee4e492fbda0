"""The text files of an OpenVINO artifact: the checkpoint's own where the tools read those.

`config.json` is the one for clients (see `client_config`); `generation_config.json` names every
token that ends a text; `openvino_config.json` says to optimum-intel what the weights are, and by
which transformers the model was saved. The tokenizer's files are there for optimum-intel, whose
pipelines take transformers' tokenizer; openvino_genai takes the two tokenizer models.
"""

import json
from collections.abc import Mapping
from typing import Any

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.template_white_space import explicit_white_space
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.targets.client_config import client_config
from phiquant.targets.openvino.form import OpenVinoForm
from phiquant.targets.tokenizer_files import json_file, read_tokenizer_files

TRANSFORMERS = "5.23.0"
"""The version whose `Phi3ForCausalLM` the reference forward was compared with; for a checkpoint
that does not say which version saved it."""


def text_files(
    form: OpenVinoForm, checkpoint: Checkpoint, tokenizer: Tokenizer
) -> dict[str, bytes]:
    """File name → content. Raises TokenizerError for a tokenizer that will not do."""
    taken = read_tokenizer_files(checkpoint, explicit_white_space)
    special = tokenizer.special
    roles = {f"{role}_token_id": getattr(special, role) for role in ("bos", "pad")}
    generation = json.loads(taken.files.get("generation_config.json", b"{}"))
    generation |= {role: number for role, number in roles.items() if number is not None}
    generation |= {"eos_token_id": list(special.ends)}
    files = {
        "config.json": json_file(client_config(checkpoint)),
        "generation_config.json": json_file(generation),
        "openvino_config.json": json_file(_openvino_config(form, checkpoint.config)),
    }
    return dict(taken.files) | files


def _openvino_config(form: OpenVinoForm, config: Mapping[str, Any]) -> dict[str, Any]:
    kind = form.kind
    version = config.get("transformers_version")
    content: dict[str, Any] = {
        "dtype": form.type if kind is None else f"int{kind.bits}",
        "input_info": None,
        "save_onnx_model": False,
        "transformers_version": version if isinstance(version, str) else TRANSFORMERS,
    }
    if kind is not None:
        content["quantization_config"] = {
            "bits": kind.bits,
            "sym": kind.symmetric,
            "group_size": kind.group or -1,
            "ratio": form.ratio,
            "quant_method": "default",
            "dtype": f"int{kind.bits}",
        }
    return content
