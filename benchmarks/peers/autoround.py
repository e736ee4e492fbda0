"""AutoRound over a checkpoint's linear layers; leaves the weights that its codes stand for.

    python autoround.py MODEL TOKENS.npy OUTPUT [--iterations 200] [--layers N] [--no-amp]

Run by the Python of AutoRound's own environment. TOKENS is an int32 array (sequences, length):
the sequences that this tool calibrates on, so that both see the same text. Every linear layer of
the blocks goes to 4 bits in asymmetric groups of 32; embedding, head and norms stay as they are.
Everything else is AutoRound's default (on a processor: bfloat16 arithmetic, batches of 8).

OUTPUT becomes a safetensors file of the rounded layers in float32: scale * (code - zero point),
with the codes recovered from AutoRound's weights, which it leaves rounded to bfloat16. Its scales
are float16 numbers by its own choice. The seconds of the quantization alone are printed as JSON.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

GROUP = 32
CODES = 15


def quantize(model: torch.nn.Module, tokens: torch.Tensor, options: argparse.Namespace) -> None:
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.pad_token = None  # it ends turns too, and AutoRound would leave it out of the loss
    data = [
        {"input_ids": batch, "attention_mask": torch.ones_like(batch)} for batch in tokens.split(8)
    ]
    rounding = AutoRound(
        model,
        tokenizer,
        scheme="W4A16",
        bits=4,
        group_size=GROUP,
        sym=False,
        dataset=data,
        iters=options.iterations,
        nsamples=len(tokens),
        seqlen=tokens.shape[1],
        batch_size=8,
        device_map="cpu",
        amp=not options.no_amp,
        disable_model_free=True,
    )
    rounding.quantize()


def exact(layer: torch.nn.Linear) -> torch.Tensor:
    """The float32 weight that a quantized layer's codes stand for."""
    rows, columns = layer.weight.shape
    scale = layer.scale.float().reshape(rows, columns // GROUP, 1)
    zero = layer.zp.float().reshape(rows, -1, 1)
    stored = layer.weight.detach().float().reshape(rows, -1, GROUP)
    codes = torch.where(scale != 0, (stored / scale + zero), zero)
    whole = codes.round()
    assert (codes - whole).abs().max() < 0.2, "not the weights of these codes"
    assert whole.min() >= 0 and whole.max() <= CODES, "codes of more than 4 bits"
    return ((whole - zero) * scale).reshape(rows, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--layers", type=int, help="the first N only: a smoke test")
    parser.add_argument("--no-amp", action="store_true", help="float32 arithmetic")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.config.use_cache = False
    if options.layers:
        model.model.layers = model.model.layers[: options.layers]
    tokens = torch.from_numpy(np.load(options.tokens).astype(np.int64))
    began = time.perf_counter()
    quantize(model, tokens, options)
    seconds = time.perf_counter() - began
    weights = {
        f"{name}.weight": exact(layer)
        for name, layer in model.named_modules()
        if getattr(layer, "scale", None) is not None
    }
    options.output.parent.mkdir(exist_ok=True)
    save_file(weights, options.output)
    print(json.dumps({"quantize_s": seconds, "layers": len(weights)}))


if __name__ == "__main__":
    main()
