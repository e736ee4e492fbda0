"""`config.json` beside an artifact, for clients that go by it as they do by a checkpoint's.

It is the checkpoint's own, without what would have code imported, and with the whole set of tokens
that end a text. Optimum (for ONNX Runtime and for OpenVINO) and transformers.js tell the model
class by it, and the sizes of keys and values.
"""

from typing import Any

from phiquant.phi.checkpoint import Checkpoint

LEFT_OUT = (
    "auto_map",  # names Python files to import
    "custom_pipelines",  # the same, for pipelines
    "_name_or_path",
    "vision_config",
)


def client_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of the file."""
    config = {key: value for key, value in checkpoint.config.items() if key not in LEFT_OUT}
    ends = checkpoint.tokenizer.special.ends
    return config | ({"eos_token_id": list(ends)} if ends else {})
