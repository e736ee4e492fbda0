"""Makes adapters with PEFT, and what merging them gives.

    python tests/phi/golden/make_adapters.py

needs numpy, safetensors, torch, transformers and peft (versions: adapters/versions.json).
Writes, for every case of `lora_cases.py`, the directory adapters/<case> as PEFT saves it, and
adapters/merged.npz, "<case>/<weight>": the weights of `merge_and_unload` in float32 by their names.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[2] / "src")]

from lora_cases import CASES, base_of  # noqa: E402


def network(case: Any) -> torch.nn.Module:
    """The base model of a case, in float32."""
    config, weights = base_of(case)
    fields = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    kind = config["architectures"][0]
    settings = getattr(transformers, kind.replace("ForCausalLM", "Config"))(**fields)
    model = getattr(transformers, kind)(settings).eval().float()
    state = {name: torch.from_numpy(values.copy()) for name, values in weights.items()}
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    return model


def main() -> None:
    merged = {}
    for name, case in CASES.items():
        torch.manual_seed(len(name))
        model = network(case)
        if case.vocabulary is not None:
            model.resize_token_embeddings(case.vocabulary, mean_resizing=False)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**case.settings))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        place = HERE / "adapters" / name
        shutil.rmtree(place, ignore_errors=True)
        adapted.save_pretrained(place, save_embedding_layers=case.vocabulary is not None or "auto")
        (place / "README.md").unlink(missing_ok=True)
        if case.half:
            halve(place / "adapter_model.safetensors")
            adapted = peft.PeftModel.from_pretrained(network(case), place)
        state = adapted.merge_and_unload().state_dict()
        # Of each weight what changes, and of the rest nothing: it is the base's.
        before = base_of(case)[1]
        for key, values in state.items():
            array = values.float().numpy()
            if key not in before or not np.array_equal(array, before[key]):
                merged[f"{name}/{key}"] = array
    np.savez_compressed(HERE / "adapters" / "merged.npz", **merged)
    versions = {module.__name__: module.__version__ for module in (peft, torch, transformers)}
    (HERE / "adapters" / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def halve(path: Path) -> None:
    """Store a file's tensors in BF16, as training in it does."""
    from safetensors.torch import load_file, save_file

    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)


if __name__ == "__main__":
    main()
