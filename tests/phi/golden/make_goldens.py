"""Makes the goldens of the reference forward with transformers.

    python tests/phi/golden/make_goldens.py

needs numpy, torch and transformers (the versions used stand in models.json). Writes

    models.json   per case: the configuration in the classic schema and as transformers 5 saves
                  it, a checksum of the weights, and what a stale cache costs; versions
    logits.npz    "<case>/<length>": the last rows of logits, float32
                  "<case>/generated": greedy continuation across LongRoPE's boundary, int32
    apart.json    per class that stores the same network in more matrices, and per case: the
                  configuration as transformers saves it
    apart.npz     "<class>/<case>/<length>": the last rows of its logits, float32
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "src")]

from golden_models import CASES, FormulaWeights, tokens_of  # noqa: E402

from phiquant.phi.architecture import Architecture  # noqa: E402
from phiquant.phi.network.parts import Rope  # noqa: E402

KEPT_FIELDS = (
    "head_dim",
    "dtype",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)


def shapes_of(config: transformers.Phi3Config) -> Architecture:
    """The architecture as far as names and shapes of weights go."""
    heads = config.num_attention_heads
    return Architecture(
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate_size=config.intermediate_size,
        vocabulary_size=config.vocab_size,
        norm_epsilon=config.rms_norm_eps,
        tied_head=config.tie_word_embeddings,
        max_positions=config.max_position_embeddings,
        sliding_window=getattr(config, "sliding_window", None),
        rope=Rope(10000.0, 2),
    )


def build(config: transformers.Phi3Config) -> tuple[torch.nn.Module, FormulaWeights]:
    weights = FormulaWeights(shapes_of(config))
    model = transformers.Phi3ForCausalLM(config).eval().float()
    state = {
        w.name: torch.from_numpy(weights.weight(w.name).copy())
        for w in weights.architecture.weights()
    }
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    assert bool(missing) == config.tie_word_embeddings
    return model, weights


def full_pass(model: Any, tokens: np.ndarray) -> np.ndarray:
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    return model(ids, use_cache=False).logits[0].numpy()


def stale_cache_difference(model: Any, tokens: np.ndarray, original: int) -> float:
    """How far a cached step past the boundary is from the full pass, in plain forward calls."""
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    cache = model(ids[:, :original], use_cache=True).past_key_values
    step = model(ids[:, original : original + 1], past_key_values=cache, use_cache=True)
    return float(
        np.abs(step.logits[0, -1].numpy() - full_pass(model, tokens[: original + 1])[-1]).max()
    )


def own_loop(model: Any, prompt: np.ndarray, steps: int) -> np.ndarray:
    """Greedy continuation with a full pass a step: no cache, no doubt."""
    tokens = prompt
    for _ in range(steps):
        tokens = np.append(tokens, full_pass(model, tokens)[-1].argmax()).astype(np.int32)
    return tokens[len(prompt) :]


APART = {
    "LlamaForCausalLM": ("full_heads", "grouped_tied", "longrope"),
    "MistralForCausalLM": ("grouped_tied", "sliding_window"),
}
"""Other classes, and the cases whose network they have too."""


def build_apart(name: str, config: Any) -> torch.nn.Module:
    """The network of a class that has q, k, v and gate, up apart, with a case's weights."""
    model = getattr(transformers, name)(config).eval().float()
    weights = FormulaWeights(shapes_of(config))
    state = {}
    for layer in weights.architecture.network.linear.values():
        whole = torch.from_numpy(weights.weight(layer.weight.name).copy())
        state |= {part.name: whole[part.first : part.last] for part in layer.parts}
    for weight in weights.architecture.weights():
        if weight.role.is_norm:
            state[weight.name] = torch.from_numpy(weights.weight(weight.name).copy())
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    return model


def main_apart() -> None:
    arrays, saved = {}, {}
    for name, cases in APART.items():
        configs = getattr(transformers, name.replace("ForCausalLM", "Config"))
        for case in cases:
            classic = {
                key: value
                for key, value in CASES[case].config.items()
                if key not in ("architectures", "model_type")
            }
            if classic["rope_scaling"] is None:
                del classic["original_max_position_embeddings"]
            config = configs(**classic, attn_implementation="eager", architectures=[name])
            model = build_apart(name, config)
            saved.setdefault(name, {})[case] = json.loads(config.to_json_string())
            for length in CASES[case].lengths:
                rows = full_pass(model, tokens_of(case, length))
                arrays[f"{name}/{case}/{length}"] = rows[-CASES[case].keep :]
    (HERE / "apart.json").write_text(json.dumps(saved, indent=1) + "\n")
    np.savez_compressed(HERE / "apart.npz", **arrays)


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    models: dict[str, Any] = {}
    for name, case in CASES.items():
        classic = json.loads(json.dumps(case.config))
        config = transformers.Phi3Config(**classic, attn_implementation="eager")
        model, weights = build(config)
        saved = json.loads(config.to_json_string(use_diff=False))
        modern = {k: v for k, v in saved.items() if k in case.config or k in KEPT_FIELDS}
        modern["architectures"] = ["Phi3ForCausalLM"]
        models[name] = {"classic": case.config, "modern": modern, "weights": weights.checksum()}
        for length in case.lengths:
            arrays[f"{name}/{length}"] = full_pass(model, tokens_of(name, length))[-case.keep :]
        if name in ("longrope", "longrope_partial"):
            prompt = tokens_of(name, 32)[:28]
            models[name]["stale_cache_difference"] = stale_cache_difference(
                model, tokens_of(name, 33), 32
            )
            arrays[f"{name}/generated"] = own_loop(model, prompt, 12)
            by_library = model.generate(
                torch.from_numpy(prompt.astype(np.int64))[None],
                do_sample=False,
                max_new_tokens=12,
                min_new_tokens=12,
                pad_token_id=2,
                eos_token_id=None,
            )[0, len(prompt) :].numpy()
            models[name]["generate_agrees"] = bool(
                (by_library == arrays[f"{name}/generated"]).all()
            )
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    text = json.dumps({"versions": versions, "models": models}, indent=1)
    (HERE / "models.json").write_text(text + "\n")
    np.savez_compressed(HERE / "logits.npz", **arrays)


if __name__ == "__main__":
    with torch.no_grad():
        main()
        main_apart()
