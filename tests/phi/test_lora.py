"""Adapters over a checkpoint: what PEFT's own merging gives, in every form that PEFT saves."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from lora_cases import CASES, LLAMA, base_of
from safetensors.numpy import load_file, save_file

from command_line import assert_refused, assert_same_payload, call, payload, tiny_model
from phiquant.errors import CheckpointError, ConfigError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.lora.adapted import adapted
from phiquant.phi.source import Source
from phiquant.phi.stored_weight import stored_shapes
from phiquant.phi.survey import survey
from tiny_models import write_safetensors

GOLDEN = Path(__file__).parent / "golden" / "adapters"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PHI = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}


def write_base(directory, case, saved_as=None):
    """The base of a case in BF16, as the class stores it that made the adapter, or as another."""
    config, weights = base_of(case)
    directory.mkdir()
    own = "llama" if config["architectures"] == LLAMA["architectures"] else "phi"
    if saved_as not in (None, own):
        (directory / "config.json").write_text(json.dumps(config))
        write_safetensors(directory / "model.safetensors", weights, "F32")
        opened = Checkpoint.open(directory)
        network = opened.architecture.network
        config = config | (LLAMA if saved_as == "llama" else PHI)
        weights = {}
        for layer in network.linear.values():
            whole = opened.weight(layer.weight.name)
            parts = layer.parts if saved_as == "llama" else ()
            weights |= {part.name: whole[part.first : part.last].copy() for part in parts}
            if not parts:
                weights[layer.weight.name] = whole
        for weight in network.weights:
            if weight.role.is_norm:
                weights[weight.name] = opened.weight(weight.name)
        assert stored_shapes(network, apart=saved_as == "llama").keys() == weights.keys()
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", weights)
    return directory


def over(base, adapter):
    return adapted(Checkpoint.open(base), Source(adapter, adapter.name))


def merged_weights(name):
    """PEFT's merged weights, by the names of the class that the adapter was made for."""
    with np.load(GOLDEN / "merged.npz") as stored:
        changed = {
            key.partition("/")[2]: values
            for key, values in stored.items()
            if key.startswith(f"{name}/")
        }
    return base_of(CASES[name])[1] | changed


@pytest.mark.parametrize("saved_as", ["phi", "llama"])
@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_that_peft_merges(tmp_path, name, saved_as):
    """To within one unit of the last place of BF16, and nearly always to that of float32."""
    checkpoint = over(write_base(tmp_path / "base", CASES[name], saved_as), GOLDEN / name)
    expected, seen = merged_weights(name), set()
    for layer in checkpoint.architecture.network.linear.values():
        whole = checkpoint.weight(layer.weight.name)
        fused = layer.weight.name in expected
        for part in layer.parts if not fused else ():
            np.testing.assert_allclose(
                whole[part.first : part.last], expected[part.name], rtol=2e-6, atol=2e-7
            )
            seen.add(part.name)
        if fused:
            np.testing.assert_allclose(whole, expected[layer.weight.name], rtol=2e-6, atol=2e-7)
            seen.add(layer.weight.name)
    for weight in checkpoint.architecture.weights():
        if weight.role.is_norm:
            np.testing.assert_array_equal(checkpoint.weight(weight.name), expected[weight.name])
            seen.add(weight.name)
    left = set(expected) - seen
    assert left <= ({"lm_head.weight"} if checkpoint.architecture.tied_head else set())


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_changes_something(tmp_path, name):
    """Else the comparison would prove nothing."""
    base = base_of(CASES[name])[1]
    merged = merged_weights(name)
    changed = [
        key for key in merged if key not in base or not np.array_equal(merged[key], base[key])
    ]
    assert len(changed) >= 2


@pytest.mark.parametrize("name", ["fused", "embedding", "apart"])
def test_bands_are_cut_from_one_sum(tmp_path, name):
    checkpoint = over(write_base(tmp_path / "base", CASES[name]), GOLDEN / name)
    for weight in checkpoint.architecture.weights():
        whole = checkpoint.weight(weight.name)
        for first, last in ((0, 3), (5, 17), (13, 15), (30, len(whole)), (7, 7)):
            np.testing.assert_array_equal(
                checkpoint.weight(weight.name, first, last), whole[first:last]
            )
    largest = survey(checkpoint).largest
    for weight in checkpoint.architecture.weights():
        assert largest[weight.name] == np.abs(checkpoint.weight(weight.name)).max()


def test_a_sum_that_is_not_finite_is_found(tmp_path):
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(key for key in tensors if "down_proj.lora_B" in key)
    tensors[name][3, 1] = np.inf
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"down_proj.*with the adapter's products"):
        survey(over(base, adapter))


REFUSED = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "another method": ({"peft_type": "IA3"}, "IA3"),
    "no method": ({"peft_type": None}, "expected an adapter of the type LORA"),
    "a base that was changed first": ({"init_lora_weights": "pissa"}, "pissa"),
    "biases of products": ({"lora_bias": True}, "lora_bias"),
    "layers that repeat": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "experts": ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
    "tokens": ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    "tokens that switch it on": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "a field of the future": ({"use_better_lora": 1}, "use_better_lora"),
    "a rank of nothing": ({"r": 0}, "r in adapter_config.json"),
    "a rank of another adapter": ({"r": 7}, "rank 4"),
    "a scale that is none": ({"lora_alpha": "16"}, "lora_alpha"),
    "an expression of exponential time": ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern"),
    "patterns of a list": ({"alpha_pattern": ["x"]}, "alpha_pattern"),
}


@pytest.mark.parametrize(("changes", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_lora_is_refused_by_name(tmp_path, changes, word):
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(ConfigError) as told:
        over(base, adapter)
    assert word in str(told.value)
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, word)


def rename(tensors, old, new):
    return {key.replace(old, new): values for key, values in tensors.items()}


DAMAGES = {
    "an adapter of another model": (lambda t: rename(t, "layers.1", "layers.9"), "layers.9"),
    "a module that Phi has not": (lambda t: rename(t, "o_proj", "w_proj"), "w_proj"),
    "half a product": (
        lambda t: {key: values for key, values in t.items() if "1.mlp.down_proj.lora_B" not in key},
        "down_proj",
    ),
    "matrices of another width": (
        lambda t: {
            key: values[:, 1:].copy() if "down_proj.lora_A" in key else values
            for key, values in t.items()
        },
        "[4, 23]",
    ),
    "a magnitude of DoRA's": (
        lambda t: t | {"base_model.model.model.x.lora_magnitude_vector": np.ones(3, "f4")},
        "lora_magnitude_vector",
    ),
    "numbers that are none": (
        lambda t: {key: values.astype(np.int32) for key, values in t.items()},
        "lora_A",
    ),
    "a weight that Phi has not": (
        lambda t: t | {"base_model.model.extra.weight": np.ones((3, 3), "f4")},
        "extra.weight",
    ),
}


@pytest.mark.parametrize(("damage", "word"), DAMAGES.values(), ids=DAMAGES)
def test_tensors_that_do_not_fit_are_refused(tmp_path, damage, word):
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    path = adapter / "adapter_model.safetensors"
    save_file(damage(load_file(path)), path)
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, word)


def test_files_that_are_not_there(tmp_path):
    base = write_base(tmp_path / "base", CASES["fused"])
    assert_refused(call("plan", base, "--adapter", base, "-q"), 2, "adapter_config.json")
    adapter = tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, "pickled")
    (adapter / "adapter_model.bin").unlink()
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, "no adapter_model")
    assert_refused(call("plan", base, "--adapter", tmp_path / "no", "-q"), 2, "no directory")


def tied_base(directory, case):
    """The base of a case whose head is its embedding."""
    base = write_base(directory, case)
    config = json.loads((base / "config.json").read_text())
    weights = base_of(case)[1]
    del weights["lm_head.weight"]
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    write_safetensors(base / "model.safetensors", weights)
    return base


@pytest.mark.parametrize("kept", ["all that PEFT saves", "the products alone"])
def test_a_product_of_a_tied_embedding_is_refused(tmp_path, kept):
    """PEFT changes the head with it when it merges, and does not when it runs."""
    base, adapter = tied_base(tmp_path / "base", CASES["embedding"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "embedding", adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert any("base_layer" in key for key in tensors)
    if kept == "the products alone":
        tensors = {key: values for key, values in tensors.items() if "lora_" in key}
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, "the head too")


def test_a_table_that_is_brought_twice_stays_one(tmp_path):
    """So PEFT saves an embedding of another vocabulary that is the head too."""
    base, adapter = tied_base(tmp_path / "base", CASES["resized"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "resized", adapter)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    embedding, head = (f"base_model.model.{at}.weight" for at in ("model.embed_tokens", "lm_head"))
    for same in (True, False):
        tensors[head] = tensors[embedding] * np.float32(1 if same else 2)
        save_file(tensors, path)
        checkpoint = over(base, adapter)
        assert checkpoint.architecture.tied_head == same
        assert checkpoint.architecture.vocabulary_size == CASES["resized"].vocabulary
        names = {weight.name for weight in checkpoint.architecture.weights()}
        assert ("lm_head.weight" in names) == (not same)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path):
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    save_file({}, adapter / "adapter_model.safetensors")
    assert_refused(call("plan", base, "--adapter", adapter, "-q"), 2, "holds no tensors")


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": "all"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "mica"},
        {"ensure_weight_tying": True},
        {"qalora_group_size": 16, "auto_mapping": {"unsloth_fixed": True}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_change_nothing_are_accepted(tmp_path, settings):
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    shutil.copytree(GOLDEN / "fused", adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    expected = over(base, GOLDEN / "fused")
    for weight in expected.architecture.weights():
        np.testing.assert_array_equal(
            over(base, adapter).weight(weight.name), expected.weight(weight.name)
        )


def test_memory_does_not_grow_with_the_adapter(tmp_path):
    """Matrices are read with the rows that they change, and let go."""
    base, adapter = write_base(tmp_path / "base", CASES["fused"]), tmp_path / "adapter"
    adapter.mkdir()
    rank, network = 1 << 14, Checkpoint.open(base).architecture.network
    tensors = {}
    for step in network.steps.values():
        stem = f"base_model.model.{step.linear.weight.name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = np.ones((rank, step.linear.columns), np.float32)
        tensors[f"{stem}.lora_B.weight"] = np.ones((step.linear.rows, rank), np.float32)
    largest = max(values.nbytes for values in tensors.values())
    save_file(tensors, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 1}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    over(base, GOLDEN / "fused").weight(next(iter(network.steps)))  # what is there once and for all
    tracemalloc.start()
    try:
        checkpoint = over(base, adapter)
        for name in network.steps:
            checkpoint.weight(name, 0, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * largest < sum(values.nbytes for values in tensors.values()) / 3


# By the command


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base with a tokenizer, an adapter over it, and both merged into one checkpoint."""
    place = tmp_path_factory.mktemp("pair")
    base = tiny_model(place / "base" / "model", dtype="F32")
    random, tensors = np.random.default_rng(3), {}
    network = Checkpoint.open(base).architecture.network
    for step in network.steps.values():
        stem = f"base_model.model.{step.linear.weight.name.removesuffix('.weight')}"
        for side, shape in (("A", (4, step.linear.columns)), ("B", (step.linear.rows, 4))):
            tensors[f"{stem}.lora_{side}.weight"] = random.normal(0, 0.3, shape).astype(np.float32)
    adapter = place / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    merged = place / "merged" / "model"
    shutil.copytree(base, merged)
    both = over(base, adapter)
    weights = {weight.name: both.weight(weight.name) for weight in both.architecture.weights()}
    write_safetensors(merged / "model.safetensors", weights, "F32")
    return base, adapter, merged


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a directory into an own cache of the hub, under a name; returns where it lies."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, directory):
        home = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        shutil.copytree(directory, home / "snapshots" / COMMIT)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(COMMIT)
        return home / "snapshots" / COMMIT

    return put


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "gguf,mlx,onnx,openvino"),
        ("--to", "gguf", "--quality", "balanced"),
        ("--to", "mlx", "--quality", "best"),
    ],
    ids=["fast", "balanced", "best"],
)
def test_artifacts_are_those_of_the_merged_checkpoint(pair, tmp_path, words):
    base, adapter, merged = pair
    (tmp_path / "text.txt").write_text("Some words, and then other words after them. " * 60)
    if "--quality" in words:
        words = (*words, "--calibration", tmp_path / "text.txt", "--calibration-size", "2x48")
    for model, more in ((base, ("--adapter", adapter)), (merged, ())):
        out = tmp_path / model.parent.name
        ended = call("quantize", model, *words, *more, "-o", out, "-q")
        assert ended.code == 0, ended.err
    assert_same_payload(tmp_path / "base", tmp_path / "merged")


def test_verify_compares_with_base_and_adapter(pair, tmp_path):
    base, adapter, merged = pair
    out = tmp_path / "out"
    ended = call("quantize", base, "--adapter", adapter, "--precision", "fp32", "-o", out, "-q")
    assert ended.code == 0, ended.err
    for against in ((base, "--adapter", adapter), (merged,)):
        ended = call("verify", out, "--against", *against, "--windows", 1, "--json", "-q")
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["figures"]["mean"]["value"] < 1e-6
    ended = call("verify", out, "--against", base, "--windows", 1, "-q")
    assert ended.code == 3
    record = json.loads((out / "phiquant.json").read_text())
    assert record["source"]["adapter"]["name"] == "adapter"
    assert record["source"]["adapter"]["settings"]["alpha"] == 2
    assert set(record["source"]["files"]) == {"model.safetensors", "adapter_model.safetensors"}
    card = (out / "README.md").read_text()
    assert "--adapter adapter" in card and "with the LoRA adapter adapter" in card


def test_the_adapters_tokenizer_is_taken(pair, tmp_path):
    base, adapter, _ = pair
    place = tmp_path / "adapter"
    shutil.copytree(adapter, place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, place / name)
    settings = json.loads((place / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    out = tmp_path / "out"
    ended = call("quantize", base, "--adapter", place, "--to", "mlx", "-o", out, "-q")
    assert ended.code == 0, ended.err
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written["chat_template"].startswith("{% for m in messages %}[")


def test_an_adapter_and_a_merged_fine_tune_on_the_hub(pair, tmp_path, hub):
    """The hub's cache stands in for it. Weights are fetched before a quantization is believed."""
    base, adapter, merged = pair
    hub("example/adapter", adapter)
    tuned = hub("example/merged", merged)
    config = json.loads((tuned / "config.json").read_text())
    stale = {"quantization_config": {"quant_method": "bitsandbytes"}}
    (tuned / "config.json").write_text(json.dumps(config | stale))
    for name, words in (
        ("over", (base, "--adapter", "https://huggingface.co/example/adapter")),
        ("merged", ("example/merged",)),
    ):
        ended = call("quantize", *words, "--to", "onnx", "-o", tmp_path / name, "-q")
        assert ended.code == 0, ended.err
    made = payload(tmp_path / "over")
    assert made["model.onnx.data"] == payload(tmp_path / "merged")["model.onnx.data"]
    record = json.loads((tmp_path / "over" / "phiquant.json").read_text())
    assert record["source"]["adapter"]["hub_id"] == "example/adapter"
    assert "--adapter example/adapter" in (tmp_path / "over" / "README.md").read_text()
