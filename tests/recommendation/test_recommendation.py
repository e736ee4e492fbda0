"""From a model and a device to a choice: what fits, what is chosen, and why the rest is not."""

import json
from dataclasses import replace

import pytest

from phiquant.devices.device import GIB
from phiquant.devices.table import devices, find_device
from phiquant.errors import ConfigError, InputError, RequestError, ResourceError
from phiquant.job.prospect import plan
from phiquant.phi.family import family, known_model
from phiquant.phi.outline import read_outline
from phiquant.phi.source import Source
from phiquant.recipe import Recipe
from phiquant.recommendation.candidates import Wish, bytes_a_token, candidates
from phiquant.recommendation.choice import UNNOTICED, choose, good_enough, roomy
from phiquant.recommendation.losses import loss_of, planned_layer_bits, read_verified
from phiquant.recommendation.recommend import recommend
from phiquant.targets.table import target
from tiny_models import tiny_config, write_tiny_checkpoint

PHI = "Phi-4-mini-instruct"


DIFFERENT = {
    (tuple(each.name for each in one.engines), one.memory_gib > 12): name
    for name, one in devices().items()
}
"""One device for each set of engines, with less memory and with more."""


@pytest.mark.parametrize("name", sorted(DIFFERENT.values()))
def test_every_device_gets_an_answer_that_adds_up(name):
    recommendation = recommend(PHI, name)
    device = recommendation.device
    assert recommendation.chosen is not None or recommendation.nearest
    assert len(recommendation.verdicts) == len(recommendation.candidates)
    assert all(recommendation.verdicts)
    for one in recommendation.candidates:
        assert one.headroom == device.usable - one.footprint.needed
        assert one.footprint.weights <= one.nbytes
        read = one.nbytes + one.footprint.cache
        assert one.speed >= 0.99 * device.bandwidth_gbs * 1e9 * one.engine.efficiency / read
        assert one.speed < device.bandwidth_gbs * 1e9 / one.footprint.cache
    if recommendation.chosen:
        assert roomy(recommendation.chosen)
        assert recommendation.verdicts.count("the choice") == 1
        assert recommendation.recipe.target in device.targets
    json.dumps(recommendation.as_json())


def test_weights_are_those_of_the_plan(tmp_path):
    write_tiny_checkpoint(tmp_path / "tiny", hidden_size=256, intermediate_size=512)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_bytes((tmp_path / "tiny/config.json").read_bytes())
    recommendation = recommend(tmp_path / "bare", "core-ultra-200v", Wish(context=256))
    for one in recommendation.candidates:
        (planned,) = plan(tmp_path / "bare", [one.recipe]).plans
        assert one.nbytes == planned.nbytes
        assert one.type == planned.type


def test_int4_where_memory_is_short_and_int8_where_it_is_not():
    """The rule of thumb, out of memory, bandwidth and loss."""
    phone, board = recommend(PHI, "iphone-16"), recommend(PHI, "raspberry-pi-5-8gb")
    assert phone.recipe.precision == board.recipe.precision == "int4"
    for name in ("core-ultra-200v", "snapdragon-x-elite", "macbook-m4-16gb", "rtx-4060-8gb"):
        assert recommend(PHI, name).recipe.precision == "int8", name


def test_a_wish_for_quality_and_for_speed():
    fp16 = recommend(PHI, "rtx-4090", Wish(min_precision="fp16"))
    assert fp16.recipe.precision == "fp16"
    assert "below the quality asked for" in fp16.verdicts
    strict = recommend(PHI, "rtx-4090", Wish(max_loss=1e-4))
    assert strict.chosen.loss.nats <= 1e-4
    slow = recommend(PHI, "core-ultra-200v", Wish(min_speed=1))
    quick = recommend(PHI, "core-ultra-200v", Wish(min_speed=25))
    assert slow.chosen.loss.nats < quick.chosen.loss.nats
    assert quick.chosen.speed >= 25 > slow.chosen.speed
    only = recommend(PHI, "core-ultra-200v", Wish(targets=("onnx",)))
    assert {one.engine.target for one in only.candidates} == {"onnx"}


def test_npus_get_what_they_take_and_are_told_apart():
    recommendation = recommend(PHI, "core-ultra-200v")
    npu = [one for one in recommendation.candidates if one.engine.provider == "npu"]
    assert {one.type for one in npu} == {"int4-sym-g128", "int4-sym-channel", "int8-sym-channel"}
    assert any("symmetric" in one.why for one in recommendation.ruled)
    far = recommend(PHI, "core-ultra-200v", Wish(context=8192))
    assert not [one for one in far.candidates if one.engine.provider == "npu"]
    assert any("4096 tokens" in one.why for one in far.ruled)
    elite = recommend(PHI, "snapdragon-x-elite")
    assert any("Hexagon" in one.name for one in elite.ruled)
    assert any("K-quants" in one.why for one in elite.ruled)


def test_a_model_that_cannot_fit_gets_the_nearest_that_can():
    recommendation = recommend("phi-4", "raspberry-pi-5-8gb")
    assert recommendation.chosen is None
    assert all("does not fit" in said or "too little" in said for said in recommendation.verdicts)
    assert any("Phi-4-mini-instruct as gguf" in line for line in recommendation.nearest)
    with pytest.raises(ResourceError, match="another Phi"):
        _ = recommendation.recipe
    strict = recommend(PHI, "raspberry-pi-5-4gb", Wish(min_precision="int8"))
    assert any("smaller precision" in line for line in strict.nearest)


def test_the_shorter_context_is_the_longest_that_fits():
    wish = Wish(context=131072)
    recommendation = recommend("Phi-3.5-mini-instruct", "raspberry-pi-5-8gb", wish)
    assert recommendation.chosen is None
    (line,) = [line for line in recommendation.nearest if "shorter context" in line]
    context = int(line.rpartition("=")[2].removesuffix("`"))
    outline, device = known_model("Phi-3.5-mini-instruct"), find_device("raspberry-pi-5-8gb")
    fits = [
        [
            one.type
            for one in candidates(outline, device, replace(wish, context=context + more))[0]
            if roomy(one) and good_enough(one, wish)
        ]
        for more in (0, 512)
    ]
    assert fits == [[fits[0][0]], []]


def test_the_cache_follows_from_the_dimensions():
    """Phi-3.5-mini keeps 32 heads of 96, Phi-4-mini 8 of 128: three times the cache."""
    sizes = {}
    for name in ("Phi-3.5-mini-instruct", PHI):
        recommendation = recommend(name, "workstation-amx-64gb", Wish(context=4096))
        sizes[name] = {one.engine.target: one.footprint for one in recommendation.candidates}
    for engine, values in (("gguf", 2), ("onnx", 4)):
        assert sizes[PHI][engine].cache == values * 2 * 32 * 8 * 128 * 4096
        assert sizes["Phi-3.5-mini-instruct"][engine].cache == 3 * sizes[PHI][engine].cache


def test_a_tied_head_is_read_for_every_token_and_an_untied_embedding_is_not(tmp_path):
    for tied, rows in ((True, 1), (False, 1)):
        write_tiny_checkpoint(tmp_path / str(tied), tie_word_embeddings=tied)
        outline = read_outline(Source(tmp_path / str(tied), "tiny"))
        made = target("gguf").plan(
            outline.architecture, outline.survey, Recipe("gguf", "fp32").form
        )
        table = 4 * 512 * 64
        assert bytes_a_token(made) == made.nbytes - (0 if tied else rows * table)


def test_losses_have_their_grounds(tmp_path):
    outline = family()[PHI]

    def planned(kind):
        return target("gguf").plan(
            outline.architecture, outline.survey, Recipe("gguf", type=kind).form
        )

    kinds = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16")
    losses = [loss_of(outline.source, planned(kind)) for kind in kinds]
    bits = [planned_layer_bits(planned(kind)) for kind in kinds]
    assert bits == sorted(bits)
    assert [one.nats for one in losses] == sorted((one.nats for one in losses), reverse=True)
    assert losses[-2].origin == "demo"
    assert losses[0].origin == "interpolated"
    assert losses[-2].nats < UNNOTICED < losses[3].nats
    with pytest.raises(InputError, match="phiquant verify"):
        read_verified([tmp_path])


def test_a_loss_that_was_measured_on_the_model_counts(tmp_path):
    from command_line import tiny_model
    from phiquant.job.making import quantize

    model = tiny_model(tmp_path / "model")
    (made,) = quantize(model, [Recipe("gguf", "int8")], tmp_path / "out")
    record = tmp_path / "out/phiquant.json"
    document = json.loads(record.read_text())
    document["verification"] = {"figures": {"mean": {"value": 0.5}}, "passed": True}
    record.write_text(json.dumps(document))
    recommendation = recommend(model, "rtx-4090", Wish(context=256), measured=[made.path])
    by_type = {
        one.type: one.loss for one in recommendation.candidates if one.engine.target == "gguf"
    }
    assert (by_type["Q8_0"].nats, by_type["Q8_0"].origin) == (0.5, "measured")
    assert by_type["F16"].origin != "measured"


def test_a_context_beyond_the_model(tmp_path):
    write_tiny_checkpoint(tmp_path / "tiny")
    assert recommend(tmp_path / "tiny", "rtx-4090").wish.context == 256
    with pytest.raises(RequestError, match="made for 256"):
        recommend(tmp_path / "tiny", "rtx-4090", Wish(context=512))


def test_models_that_are_none(tmp_path):
    with pytest.raises(ConfigError):
        recommend(tmp_path, "rtx-4090")
    with pytest.raises(InputError):
        recommend("no-such-model", "rtx-4090")


def test_choosing_among_nothing():
    assert choose([], Wish()) is None
    small = replace(find_device("raspberry-pi-5-4gb"), usable_gib=0.1)
    assert small.usable == int(0.1 * GIB)
    recommendation = recommend("phi-4", small)
    assert recommendation.chosen is None
    assert recommendation.nearest == ()


def test_published_dimensions():
    """Parameter counts as the model cards have them, in billions."""
    counts = {
        name: sum(
            int.__mul__(*one.shape) if len(one.shape) == 2 else one.shape[0]
            for one in outline.architecture.weights()
        )
        for name, outline in family().items()
    }
    assert {name: round(count / 1e9, 1) for name, count in counts.items()} == {
        "Phi-4-mini-instruct": 3.8,
        "Phi-3.5-mini-instruct": 3.8,
        "Phi-3-mini-4k-instruct": 3.8,
        "Phi-3-medium-4k-instruct": 14.0,
        "phi-4": 14.7,
    }
    assert known_model("microsoft/PHI-4").source.name == "phi-4"
    assert known_model("phi-5") is None
    assert tiny_config()["model_type"] == "phi3"
