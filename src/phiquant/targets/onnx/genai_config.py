"""`genai_config.json`: what onnxruntime-genai reads beside the graph.

The model type is "phi3", by which genai knows that a sequence which grows past LongRoPE's
boundary must be computed anew with the other factors. Search defaults are the checkpoint's
`generation_config.json`, with genai's own where it says nothing.

`search.max_length` is how long a sequence may get. In the fused form past and present keys and
values share one buffer a layer, which genai allocates for `max_length` tokens, and fills with
zeros, when a generator is made: with all positions of Phi-4-mini 34 GB. So `max_length` is what
the artifact was made to serve; `context_length` stays the model's, and a caller of genai may set
`max_length` up to it. In the standard form the cache grows with the sequence.
Source: src/config.h, src/generators.cpp and src/models/kv_cache.cpp of
microsoft/onnxruntime-genai (0.18).
"""

import json
from collections.abc import Mapping
from typing import Any

from phiquant.phi.architecture import Architecture
from phiquant.phi.tokenizer.special_tokens import SpecialTokens
from phiquant.targets.onnx.formats import ON_CPU, OnnxForm
from phiquant.targets.onnx.rotary import needs_positions

SEARCH: Mapping[str, Any] = {
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": True,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
FROM_CHECKPOINT = tuple(name for name in SEARCH if name not in ("early_stopping", "min_length"))

PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cuda": {"enable_cuda_graph": "0"},
    "dml": {},
    "webgpu": {},
}


def genai_config(
    architecture: Architecture,
    form: OnnxForm,
    special: SpecialTokens,
    generation: Mapping[str, Any],
) -> bytes:
    """The file's content; `generation` is the checkpoint's generation_config.json, parsed."""
    own = architecture
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    if form.fused and needs_positions(architecture, form.provider):
        inputs["position_ids"] = "position_ids"
    providers = (
        [] if form.provider in ON_CPU else [{form.provider: dict(PROVIDER_OPTIONS[form.provider])}]
    )
    pad = special.pad if special.pad is not None else special.eos
    model = {
        "type": "phi3",
        "bos_token_id": special.bos,
        "eos_token_id": list(special.ends),
        "pad_token_id": pad if pad is not None else next(iter(special.ends), 0),
        "context_length": own.max_positions,
        "vocab_size": own.vocabulary_size,
        "decoder": {
            "filename": "model.onnx",
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": providers},
            "head_size": own.head_size,
            "hidden_size": own.hidden_size,
            "num_attention_heads": own.heads,
            "num_key_value_heads": own.kv_heads,
            "num_hidden_layers": own.layers,
            "inputs": inputs
            | {
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
    }
    if special.bos is None:
        del model["bos_token_id"]
    search = dict(SEARCH) | {
        name: generation[name] for name in FROM_CHECKPOINT if generation.get(name) is not None
    }
    search |= {
        "max_length": form.max_length(own.max_positions),
        "past_present_share_buffer": form.fused,
    }
    return (
        json.dumps({"model": model, "search": dict(sorted(search.items()))}, indent=2) + "\n"
    ).encode()
