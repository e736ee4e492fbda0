"""Artifacts whose tensors lie on random mixtures of all that is on offer, in their runtimes."""

import re
from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from openvino_tiny import operations

from phiquant.job.budgets import RoundedWeights
from phiquant.job.making import quantize
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network.parts import Role
from phiquant.phi.reference import Reference
from phiquant.phi.survey import Survey, survey
from phiquant.planning.budget import Budget
from phiquant.planning.parts import joined, taken_apart
from phiquant.planning.plan import PlanRow
from phiquant.recipe import Recipe
from phiquant.targets.table import target
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

RUNTIMES = {
    "gguf": "gguf",
    "mlx": "mlx_lm",
    "onnx": "onnxruntime_genai",
    "openvino": "openvino_genai",
}

CASES = {
    "gguf": Recipe("gguf"),
    "mlx": Recipe("mlx"),
    "onnx": Recipe("onnx"),
    "onnx, float activations": Recipe("onnx", options=(("accuracy_level", "0"),)),
    "onnx, standard operators": Recipe("onnx", options=(("qdq", "true"),)),
    "openvino": Recipe("openvino"),
}

WIDTHS = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}


def tiny_source(directory, **features):
    tokens = write_tiny_tokenizer(directory, 512, "bpe")
    ends = {"eos_token_id": tokens.eos, "bos_token_id": tokens.bos, "pad_token_id": tokens.eos}
    write_tiny_checkpoint(directory, dtype="F32", **(WIDTHS | ends | features))
    return Checkpoint.open(directory)


def mixed(plan, recipe, surveyed, seed):
    """`plan` with every matrix on a random choice; each choice of a role in turn."""
    random = np.random.default_rng(seed)
    orders, rows = {}, []
    for row in plan.rows:
        offered = target(recipe.target).choices(row, recipe.form, surveyed)
        if offered:
            order = orders.setdefault(row.role, [])
            if not order:
                order.extend(random.permutation(len(offered)))
            row = offered[order.pop()]  # noqa: PLW2901
        rows.append(row)
    return replace(plan, rows=tuple(rows), type=target(recipe.target).type_of(rows))


def in_parts(plan, source, recipe):
    choices = target(recipe.target).choices_for(recipe.form, survey(source))
    return taken_apart(plan, source.architecture, choices)


def write(plan, recipe, checkpoint, directory):
    """Encode and write all rows; returns the weights that should come out, by name."""
    into = target(recipe.target)
    expected = {}
    directory.mkdir()
    with into.writer(plan, checkpoint, recipe.form, directory) as writer:
        for row in plan.rows:
            if row.source is None:
                continue
            last = row.first + row.shape[0]
            weights = checkpoint.weight(row.source, row.first, last).reshape(-1, row.shape[-1])
            parts = into.grids[row.grid].encode(weights)
            writer.write(row, 0, parts)
            decoded = into.grids[row.grid].decode(parts, row.shape[-1])
            expected.setdefault(row.source, []).append(decoded.reshape(row.shape))
    return {name: np.concatenate(held) for name, held in expected.items()}


def runtime_of(recipe):
    return pytest.importorskip(RUNTIMES[recipe.target])


@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.long), 1, 2, pytest.param(3, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("case", CASES)
def test_random_mixtures_load_and_run(tmp_path, case, seed):
    recipe = CASES[case]
    runtime_of(recipe)
    features = {"tie_word_embeddings": seed % 2 == 0, "num_hidden_layers": 6}
    source = tiny_source(tmp_path / "source", **features)
    plan = target(recipe.target).plan(source.architecture, survey(source), recipe.form)
    if target(recipe.target).apart and seed > 1:
        plan = in_parts(plan, source, recipe)
        assert sum(row.source.endswith("qkv_proj.weight") for row in plan.rows if row.source) == 18
    plan = mixed(plan, recipe, survey(source), seed)
    expected = write(plan, recipe, source, tmp_path / "out")
    artifact = target(recipe.target).open(tmp_path / "out")
    for name, weights in expected.items():
        np.testing.assert_array_equal(artifact.weight(name), weights, err_msg=name)
    made = sum(one.nbytes for one in artifact.entries())
    planned = sum(row.nbytes for row in plan.rows if row.source)
    # With standard operators, zero points of 4 bits share bytes across rows.
    assert made == pytest.approx(planned, rel=1e-3 if "standard" in case else 0)

    tokens = np.random.default_rng(seed).integers(0, 500, 33).astype(np.int32)
    wanted = Reference(artifact).logits(tokens)
    with target(recipe.target).runner(tmp_path / "out") as runner:
        logits = runner.logits(tokens)
    assert wanted.std() > 0.1
    # Most runtimes round activations to 8 bits in front of quantized matrices.
    assert np.abs(logits - wanted).mean() < 0.05 * wanted.std()


@pytest.mark.parametrize("case", ["onnx", "onnx, standard operators", "openvino"])
def test_a_part_that_no_file_cuts_where_a_band_ends_is_written_whole(tmp_path, case, monkeypatch):
    """Through the whole job, with bands that end within parts and at odd rows."""
    recipe = replace(CASES[case], budget=Budget(bits_per_weight=6.0), quality="data-free")
    runtime_of(recipe)
    monkeypatch.setattr("phiquant.job.streaming.BAND", 37 * 256)
    source = tiny_source(tmp_path / "source", num_hidden_layers=2)
    (made,) = quantize(tmp_path / "source", [recipe], tmp_path / "out")
    assert any(row.first for row in made.plan.rows)
    artifact, rounded = (
        target(recipe.target).open(made.path),
        RoundedWeights(source, recipe, made.plan),
    )
    for weight in source.architecture.weights():
        np.testing.assert_array_equal(artifact.weight(weight.name), rounded.weight(weight.name))
    tokens = np.random.default_rng(1).integers(0, 500, 21).astype(np.int32)
    wanted = Reference(artifact).logits(tokens)
    with target(recipe.target).runner(made.path) as runner:
        assert np.abs(runner.logits(tokens) - wanted).mean() < 0.05 * wanted.std()


def test_parts_that_agree_are_joined_again(tmp_path):
    recipe, into = CASES["openvino"], target("openvino")
    source = tiny_source(tmp_path / "source", num_hidden_layers=2)
    whole = into.plan(source.architecture, survey(source), recipe.form)
    apart = in_parts(whole, source, recipe)
    assert [row.output.rpartition(".")[2] for row in apart.rows[2:9]] == [
        "q_proj", "k_proj", "v_proj", "o_proj", "post_attention_layernorm", "gate_proj", "up_proj",
    ]  # fmt: skip
    assert apart.weights == whole.weights

    choices = into.choices_for(recipe.form, survey(source))

    def on(rows, grid):
        return [next(one for one in choices(row) if one.grid == grid) for row in rows]

    alike = replace(apart, rows=(*apart.rows[:2], *on(apart.rows[2:5], "u4 g32"), *apart.rows[5:]))
    fused = joined(alike, whole, choices)
    (row,) = (row for row in fused.rows if row.source == whole.rows[2].source)
    assert (row.output, row.shape, row.grid) == (
        whole.rows[2].output,
        whole.rows[2].shape,
        "u4 g32",
    )
    assert row.nbytes == on(whole.rows[2:3], "u4 g32")[0].nbytes
    other = replace(alike, rows=(*alike.rows[:4], *on(alike.rows[4:5], "u8 g32"), *alike.rows[5:]))
    assert joined(other, whole, choices).rows[2:5] == other.rows[2:5]


def test_openvino_decodes_every_choice_inside_its_kernels(tmp_path):
    """Nothing is unpacked ahead: the products and the embedding's rows take the stored codes."""
    runtime_of(Recipe("openvino"))
    recipe, into = Recipe("openvino"), target("openvino")
    source = tiny_source(tmp_path / "source", tie_word_embeddings=True, num_hidden_layers=1)
    base = into.plan(source.architecture, survey(source), recipe.form)
    offered = into.choices(base.rows[0], recipe.form, survey(source))[::2]
    for at, choice in enumerate(offered):
        rows = []
        for row in base.rows:
            grid = choice.grid if row.layer is None else offered[at - 1].grid
            choices = into.choices(row, recipe.form, survey(source))
            rows.append(next((one for one in choices if one.grid == grid), row))
        plan = replace(base, rows=tuple(rows), type=into.type_of(rows))
        write(plan, recipe, source, tmp_path / str(at))
        with into.runner(tmp_path / str(at)) as runner:
            runner.logits(np.arange(5, dtype=np.int32))
            nodes = operations(runner)
        products = [node for node in nodes if node["layerType"] == "FullyConnected"]
        types = Counter(node["runtimePrecision"].replace("f32", "f16") for node in products)
        layers, tables = offered[at - 1].grid.split()[0], choice.grid.split()[0]
        assert types == Counter({layers: 4}) + Counter({tables: 1})
        for node in nodes:
            if node["layerType"] not in ("Const", "FullyConnected"):
                extents = map(int, re.findall(r"\d+", node["shape"]))
                assert prod(extents) < 256 * 256, (choice.grid, node)


def row_of(role, shape):
    return PlanRow("w.weight", "w", role, 0, shape, "", 0, "")


def names(recipe, role, shape, largest=1.0):
    choices = target(recipe.target).choices(
        row_of(role, shape), recipe.form, Survey({"w.weight": largest}, "BF16")
    )
    return {row.grid for row in choices}


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_those_of_the_grid_and_norms_stay(case):
    recipe = CASES[case]
    into = target(recipe.target)
    surveyed = Survey({"w.weight": 1.0}, "BF16")
    assert into.choices(row_of(Role.FFN_NORM, (256,)), recipe.form, surveyed) == ()
    offered = into.choices(row_of(Role.DOWN, (96, 768)), recipe.form, surveyed)
    assert len({row.grid for row in offered}) == len(offered) >= 5
    for row in offered:
        layout = into.grids[row.grid].layout(row.shape)
        assert row.nbytes <= sum(part.nbytes for part in layout.values())
        assert row.nbytes >= layout[next(iter(layout))].nbytes


def test_only_blocks_that_divide_the_rows_are_offered():
    assert names(CASES["gguf"], Role.DOWN, (8, 288)) == {
        "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "F16",
    }  # fmt: skip
    assert names(CASES["gguf"], Role.DOWN, (8, 250)) == {"F16"}
    assert names(CASES["gguf"], Role.DOWN, (8, 250), largest=1e6) == {"BF16"}
    assert names(CASES["mlx"], Role.DOWN, (8, 96)) == {
        *(f"{bits}bit-g32 BF16" for bits in (2, 3, 4, 5, 6, 8)), "BF16",
    }  # fmt: skip
    assert names(CASES["onnx"], Role.DOWN, (8, 48)) == {
        "int4-b16 F32", "int4-b16-sym F32", "int8-b16 F32", "int8-b16-sym F32",
    }  # fmt: skip
    assert names(CASES["openvino"], Role.DOWN, (8, 40), largest=1e6) == {
        "i4 channel", "u4 channel", "i8 channel", "u8 channel",
    }  # fmt: skip


def test_what_a_runtime_is_slow_with_or_refuses_is_not_offered():
    exact = CASES["onnx, float activations"]
    assert all(name.startswith("int4") for name in names(exact, Role.DOWN, (8, 256)))
    standard = CASES["onnx, standard operators"]
    for role, rows in ((Role.EMBEDDING, 8), (Role.DOWN, 7)):
        assert all(name.startswith("int8") for name in names(standard, role, (rows, 256)))
    gpu = Recipe("onnx", options=(("provider", "cuda"),))
    assert "int8-b32 F16" in names(gpu, Role.DOWN, (8, 256))
    npu = Recipe("openvino", options=(("ov_device", "NPU"),))
    assert names(npu, Role.DOWN, (8, 256)) == {
        "i4 g128", "i8 g128", "i4 channel", "i8 channel", "f16",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "grids", "type"),
    [
        ("gguf", {"Q4_K": 3, "Q6_K": 2, "F32": 1}, "Q4_K_M"),
        ("gguf", {"Q5_0": 3, "F16": 2}, "Q5_0"),
        ("mlx", {"BF16": 5, "3bit-g64 BF16": 1, "4bit-g32 BF16": 2}, "4bit-g32"),
        ("mlx", {"BF16": 5}, "bf16"),
        ("onnx", {"F32": 5, "int8-b32-sym F32": 2, "int4-b16 F32": 1}, "int8-b32-sym"),
        ("openvino", {"f32": 5, "u4 g64": 2, "i8 channel": 1}, "int4-asym-g64"),
    ],
)
def test_a_mixture_goes_by_the_type_of_most_of_its_weights(name, grids, type):
    rows = [replace(row_of(Role.DOWN, (n, 256)), grid=grid) for grid, n in grids.items()]
    assert target(name).type_of(rows) == type
    assert type in target(name).types
