"""What the plan gives each tensor, and what it refuses."""

from math import prod

import pytest

from phiquant.errors import RequestError
from phiquant.phi.config import read_architecture
from phiquant.phi.survey import Survey
from phiquant.recipe import Recipe
from phiquant.targets.openvino import TARGET
from phiquant.targets.openvino.planner import ROLES, sensitivity
from tiny_models import tiny_config


def planned(changes=None, options=(), **asked):
    architecture = read_architecture(
        tiny_config(**({"hidden_size": 128, "intermediate_size": 256} | (changes or {})))
    )
    largest = {weight.name: 1.0 for weight in architecture.weights()}
    recipe = Recipe("openvino", options=tuple(options), **asked)
    return TARGET.plan(architecture, Survey(largest), recipe.form)


def grids(plan):
    return {row.role: row.grid for row in plan.rows}


def test_each_role_of_the_default():
    stored = grids(planned(precision="int4"))
    assert {stored[role] for role in ROLES} == {"i4 g64"}
    assert stored["embedding"] == stored["head"] == "u8 channel"
    assert stored["final_norm"] == "f32"


@pytest.mark.parametrize("name", sorted(TARGET.types))
def test_every_type_can_be_planned(name):
    plan = planned(type=name)
    assert plan.type == name
    assert all(row.nbytes > 0 and row.reason for row in plan.rows)


def test_rows_that_no_group_divides_get_less():
    stored = grids(planned({"hidden_size": 80, "num_attention_heads": 4}, type="int4-sym-g64"))
    assert stored["qkv"] == "i8 channel"
    assert stored["down"] == "i4 g64"
    stored = grids(planned({"hidden_size": 96, "num_attention_heads": 4}, type="int4-asym-g128"))
    assert stored["qkv"] == "u4 g32"


def test_weights_beyond_fp16_stay_float32():
    architecture = read_architecture(tiny_config())
    largest = {weight.name: 1e5 for weight in architecture.weights()}
    plan = TARGET.plan(architecture, Survey(largest), Recipe("openvino", "fp16").form)
    assert {row.grid for row in plan.rows} == {"f32"}


@pytest.mark.parametrize("ratio", ["0", "0.3", "0.8", "1"])
def test_a_ratio_is_kept_and_spares_the_most_sensitive(ratio):
    plan = planned({"num_hidden_layers": 9}, [("ratio", ratio)], precision="int4")
    matrices = [row for row in plan.rows if row.role in ROLES]
    low = [row for row in matrices if row.grid == "i4 g64"]
    share = sum(prod(row.shape) for row in low) / sum(prod(row.shape) for row in matrices)
    assert float(ratio) - 0.03 < share <= float(ratio)
    high = [row for row in matrices if row.grid == "u8 channel"]
    assert len(low) + len(high) == len(matrices)
    if low and high:
        assert max(sensitivity(r, 9) for r in high) < min(sensitivity(r, 9) for r in low)


@pytest.mark.parametrize(
    ("asked", "options", "words"),
    [
        ({"type": "int3-sym-g64"}, [], "no type"),
        ({"precision": "int4"}, [("ov_device", "TPU")], "device"),
        ({"precision": "int4"}, [("ratio", "1.5")], "ratio"),
        ({"precision": "int8"}, [("ratio", "0.5")], "int4"),
        ({"type": "int4-asym-g128"}, [("ov_device", "NPU")], "symmetric"),
        ({"type": "int4-sym-g64"}, [("ov_device", "NPU")], "128"),
        ({"precision": "fp16"}, [("ov_device", "npu")], "symmetric"),
        ({"precision": "int4", "context": 10_000}, [], "tokens"),
    ],
)
def test_refusals(asked, options, words):
    with pytest.raises(RequestError, match=words):
        planned(options=options, **asked)


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_an_npu_gets_symmetric_weights_only(precision):
    plan = planned(options=[("ov_device", "NPU")], precision=precision)
    assert {row.grid for row in plan.rows} <= {"i4 g128", "i8 channel", "f32"}


def test_a_ratio_goes_by_measured_sensitivities_where_there_are_any():
    """A byte of the backup goes where it saves most, whatever the role."""
    config = tiny_config(num_hidden_layers=4, hidden_size=128, intermediate_size=256)
    architecture = read_architecture(config)
    matrices = [weight for weight in architecture.weights() if weight.role in ROLES]
    nats = {weight.name: 1e-9 * prod(weight.shape) for weight in matrices}
    first, second = (
        "model.layers.1.mlp.gate_up_proj.weight",
        "model.layers.2.self_attn.o_proj.weight",
    )
    nats |= {first: 1.0, second: 0.9}  # the second is smaller, and so the more sensitive
    sizes = {weight.name: prod(weight.shape) for weight in matrices}
    survey = Survey({weight.name: 1.0 for weight in architecture.weights()}, "BF16", nats)

    def backed_up(share):
        recipe = Recipe("openvino", options=(("ratio", f"{1 - share}"),))
        plan = TARGET.plan(architecture, survey, recipe.form)
        return {row.source for row in plan.rows if row.role in ROLES and "8" in row.grid}

    total = sum(sizes.values())
    assert backed_up(sizes[second] / total) == {second}
    assert backed_up((sizes[first] + sizes[second]) / total) == {first, second}
