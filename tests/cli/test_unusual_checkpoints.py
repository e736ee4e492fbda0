"""Checkpoints that are sound, and not stored as most are: read as transformers reads them, and said
so in the plan, the card and `inspect`.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import assert_refused, assert_same_payload, call, tiny_model
from tiny_models import tiny_config, tiny_weights, write_safetensors

SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
WEIGHTS = tiny_weights(tiny_config(**SHAPE))
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def planned(model, *words):
    """The notes of a plan, and its document."""
    ended = call("plan", model, "--json", "-q", *words)
    assert ended.code == 0, ended.err
    (one,) = json.loads(ended.out)["plans"]
    return " ".join(one["plan"]["notes"]), one["plan"]


def rows(plan):
    return [(row["source"], row["grid"], row["nbytes"]) for row in plan["rows"]]


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A model whose config ties its head wrongly, and the same with a config that is right."""
    place = tmp_path_factory.mktemp("twins")
    wrong = tiny_model(place / "wrong", weights=WEIGHTS, tie_word_embeddings=True)
    return wrong, tiny_model(place / "right", weights=WEIGHTS)


@pytest.mark.parametrize(
    "target, runtime",
    [
        ("gguf", "xllamacpp"),
        ("mlx", "mlx_lm"),
        ("onnx", "onnxruntime_genai"),
        ("openvino", "openvino_genai"),
    ],
)
def test_a_head_that_the_config_ties_wrongly_is_kept(twins, tmp_path, target, runtime):
    wrong, right = twins
    notes, plan = planned(wrong, "--to", target, "--precision", "fp32")
    assert "stored with different values" in notes
    assert rows(plan) == rows(planned(right, "--to", target, "--precision", "fp32")[1])
    pytest.importorskip(runtime)
    out = tmp_path / "out"
    made = call("quantize", wrong, "--to", target, "--precision", "fp32", "-o", out, "-q")
    assert made.code == 0, made.err
    assert "stored with different values" in (out / "README.md").read_text()
    if (out / "config.json").is_file():
        assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    ended = call("verify", out, "--against", right, "--windows", 1, "--json", "-q")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["figures"]["mean"]["value"] < 1e-6


def test_a_head_that_equals_the_embedding_is_stored_once(tmp_path):
    both = WEIGHTS | {HEAD: WEIGHTS[EMBEDDING]}
    notes, plan = planned(tiny_model(tmp_path / "m", weights=both, tie_word_embeddings=True))
    assert f"{HEAD} is stored beside {EMBEDDING} and equals it" in notes
    assert HEAD not in [source for source, _, _ in rows(plan)]


def test_inspect_tells_what_a_plan_tells(twins):
    shown = call("inspect", twins[0])
    assert "stored with different values" in " ".join(shown.out.split())
    (note,) = json.loads(call("inspect", twins[0], "--json").out)["notes"]
    assert note in planned(twins[0])[0]
    assert json.loads(call("inspect", twins[1], "--json").out)["notes"] == []


def test_names_with_a_wrappers_prefix(tmp_path):
    wrapped = {f"_orig_mod.module.{name}": one for name, one in WEIGHTS.items()}
    notes, plan = planned(tiny_model(tmp_path / "wrapped", weights=wrapped))
    assert "_orig_mod., which torch.compile adds, was taken off" in notes
    assert "module., which DataParallel" in notes
    assert rows(plan) == rows(planned(tiny_model(tmp_path / "plain", weights=WEIGHTS))[1])


def test_an_adapter_beside_the_model(tmp_path):
    model = tiny_model(tmp_path / "m", weights=WEIGHTS)
    lora = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    write_safetensors(model / "adapter_model.safetensors", {lora: np.ones((2, 256), "f4")})
    notes, _ = planned(model)
    assert "not read: adapter_model.safetensors" in notes
    (model / "model.safetensors").unlink()
    for command in ("plan", "inspect"):
        assert_refused(call(command, model), 2, "adapter_model.safetensors", "--adapter")


def test_an_adapter_in_the_model_is_refused(tmp_path):
    adapted = {f"base_model.model.{name}": one for name, one in WEIGHTS.items()}
    lora = "base_model.model.model.layers.0.mlp.down_proj.lora_A.default.weight"
    model = tiny_model(tmp_path / "m", weights=adapted | {lora: np.ones((2, 256), "f4")})
    assert_refused(call("plan", model, "-q"), 2, "adapter", lora, "merge_and_unload")


def test_new_weights_beside_stale_shards(tmp_path):
    model = tiny_model(tmp_path / "m", shards=2, seed=5)
    write_safetensors(model / "model.safetensors", WEIGHTS)
    notes, _ = planned(model)
    assert "the weights are those of model.safetensors" in notes
    assert "model.safetensors.index.json, model-00001-of-00002.safetensors" in notes


LEFT = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state_0.pth",
    "training_args.bin",
    "trainer_state.json",
    "adapter_config.json",
    "runs/events.out.tfevents.1",
    "checkpoint-100/config.json",
    "checkpoint-100/model.safetensors",
    "global_step100/mp_rank_00_model_states.pt",
)
"""What trainers leave in a directory; none of it is read."""


def test_a_merged_fine_tune_with_what_its_training_left(tmp_path):
    """The base beneath its adapter was quantized, and the configuration says so still."""
    bits = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    merged = tiny_model(tmp_path / "merged" / "m", weights=WEIGHTS, quantization_config=bits)
    for name in LEFT:
        (merged / name).parent.mkdir(exist_ok=True)
        (merged / name).write_bytes(b"\x80\x04no pickle\n" * 9)
    clean = tiny_model(tmp_path / "clean" / "m", weights=WEIGHTS)
    notes, plan = planned(merged)
    assert "config.json has quantization_config, and the weights are not quantized" in notes
    assert rows(plan) == rows(planned(clean)[1])
    for model in (merged, clean):
        out = model.parent / "out"
        ended = call("quantize", model, "--to", "gguf,mlx,openvino", "-o", out, "-q")
        assert ended.code == 0, ended.err
    assert_same_payload(merged.parent / "out", clean.parent / "out")


def test_a_base_of_qlora_is_refused(tmp_path):
    """4 bits a weight as bitsandbytes stores them: bytes of two, and what decodes them."""
    weights, name = dict(WEIGHTS), "model.layers.0.mlp.down_proj.weight"
    model = tiny_model(
        tmp_path / "m", weights=weights, quantization_config={"quant_method": "bitsandbytes"}
    )
    packed = np.zeros((weights[name].size // 2, 1), np.uint8)
    rest = {key: value.astype(np.float16) for key, value in weights.items() if key != name}
    save_file(
        rest | {name: packed, f"{name}.absmax": np.ones(9, "f4")}, model / "model.safetensors"
    )
    for command in ("plan", "inspect"):
        assert_refused(call(command, model), 2, "quantized already", "absmax", "start from")


def test_a_missing_shard_is_told_as_that(tmp_path):
    model = tiny_model(
        tmp_path / "m", weights=WEIGHTS, quantization_config={"quant_method": "bitsandbytes"}
    )
    fewer = {name: values for name, values in WEIGHTS.items() if "layers.1" not in name}
    write_safetensors(model / "model.safetensors", fewer)
    assert_refused(call("plan", model, "-q"), 2, "num_hidden_layers is 2")


def test_a_quantized_model_is_refused_before_its_weights_are_fetched(tmp_path):
    model = tiny_model(tmp_path / "m", quantization_config={"quant_method": "gptq"})
    (model / "model.safetensors").unlink()
    assert_refused(call("plan", model, "-q"), 2, "quantized already", "quantization_config")


def test_an_unknown_prefix_is_named_and_hundreds_of_names_are_not(tmp_path):
    student = {f"student.{name}": one for name, one in WEIGHTS.items()}
    ended = call("plan", tiny_model(tmp_path / "m", weights=student), "-q")
    assert_refused(ended, 2, "their names begin with student.", "take the prefix off")
    assert len(ended.err) < 400
