"""How PEFT stores adapters (LoRA and its kin): by what files, and under what names.

An adapter changes the matrices of a model when the model runs. Those of LoRA are added as a model
is read (`adapted`); what is no more than named here has to be merged first.
"""

import re

MERGE = "merge it into its base model first, with PEFT's merge_and_unload() and save_pretrained()"
GIVE = "give the base model, and the adapter's directory as `adapter`"

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
TENSORS = re.compile(
    r"(^|\.)(lora_\w+|base_layer|modules_to_save|original_module|ia3_l|oft_r|hada_w\w+|lokr_w\w+)"
    r"(\.|$)"
)
"""Names of an adapter's tensors, and of the matrices that they change."""
PREFIX = "base_model.model."
"""What PEFT puts before every name of a model that it adapts."""


def is_adapter_file(name: str) -> bool:
    """Whether a file is called as PEFT calls an adapter's (adapter_model.safetensors)."""
    return name.startswith("adapter_")
