"""`verify` against a runtime in NumPy: sound artifacts pass, each kind of broken one fails."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fake_runtime import FakeArtifact, FakeRunner, fake_target, with_rope
from phiquant.errors import ArtifactError
from phiquant.evaluation import opening
from phiquant.evaluation.arithmetic import SLOW_RUN
from phiquant.evaluation.channels import ChannelFactors
from phiquant.evaluation.check import Outcome
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.stopping import likely_ends
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.phi.reference import Reference
from phiquant.quantization.rescaling import Rescaled
from phiquant.targets.target import Generation
from tiny_models import longrope, write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SETTINGS = Settings(window=48, windows=6, answer=4)


class Case:
    """A checkpoint with its figures, and a sound artifact of it to break."""

    def __init__(self, directory, monkeypatch, **changes):
        tiny = write_tiny_tokenizer(directory / "model")
        ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
        write_tiny_checkpoint(directory / "model", **ends, pad_token_id=tiny.eos, **changes)
        self.truth = ReferenceFigures.measure(directory / "model", SETTINGS)
        self.path = directory / "artifact"
        self.path.mkdir()
        (self.path / "weights.fake").write_bytes(b"weights")
        self.artifact = FakeArtifact(self.path, self.truth.checkpoint)
        self.ends = (tiny.eos, tiny.end)
        self.monkeypatch = monkeypatch
        self.runner = None

    def verify(self, settings=SETTINGS, **runner_changes):
        runner = FakeRunner(self.artifact, self.truth.tokenizer, self.ends)
        for name, value in runner_changes.items():
            setattr(runner, name, value)
        self.runner = runner
        self.use(runner)
        return verify(self.path, self.truth, settings)

    def use(self, runner):
        target = fake_target(self.artifact, runner)
        self.monkeypatch.setattr(opening, "targets", lambda: (target,))


@pytest.fixture
def case(tmp_path, monkeypatch):
    return Case(tmp_path, monkeypatch)


def outcomes(verification):
    return {check.name: check.outcome for check in verification.checks}


def failures(verification):
    return {check.name for check in verification.checks if check.failed}


def test_a_sound_artifact_passes_with_every_figure(case):
    verification = case.verify()
    assert verification.passed, verification.reasons
    assert verification.measured_in == "fake 1.0"
    assert 0 < verification.figures.mean.value < 1e-4
    assert verification.figures.mean.error > 0
    assert verification.figures.top1_agreement.value > 0.98
    assert verification.figures.perplexity_ratio.value == pytest.approx(1, abs=1e-3)
    assert verification.size.bits_per_weight == 16
    assert verification.sample.windows == 6
    json.dumps(verification.as_json(), allow_nan=False)


def test_an_exact_artifact_loses_nothing(case):
    case.artifact.weights = {
        name: case.truth.checkpoint.weight(name) for name in case.artifact.weights
    }
    verification = case.verify()
    assert verification.passed
    assert verification.figures.mean.value < 1e-9
    assert verification.figures.top1_agreement.value == 1
    assert verification.weight_errors.worst == 0


def test_swapped_layers_fail(case):
    """Same shapes, finite, same file size: only weights and figures can tell."""
    weights = case.artifact.weights
    a, b = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
    weights[a], weights[b] = weights[b], weights[a]
    verification = case.verify()
    assert failures(verification) == {"weights", "divergence"}
    assert a in verification.reasons[0] and b in verification.reasons[0]


def rescaled(case):
    """The artifact's weights re-scaled by factors of up to 3."""
    source, random = case.truth.checkpoint, np.random.default_rng(4)
    fed = {
        weight.name: np.exp(random.uniform(-1.1, 1.1, weight.shape[1])).astype(np.float32)
        for weight in source.architecture.weights()
        if weight.role in ("qkv", "gate_up", "down")
    }
    network = Rescaled(source, fed)
    case.artifact.weights = {name: network.weight(name) for name in case.artifact.weights}
    return case.artifact.weights


def test_rescaled_channels_are_told_from_errors(case):
    weights = rescaled(case)
    original = case.truth.checkpoint.weight("model.layers.0.mlp.down_proj.weight")
    assert not np.allclose(weights["model.layers.0.mlp.down_proj.weight"], original, rtol=0.5)
    verification = case.verify()
    assert verification.passed, verification.reasons
    assert verification.weight_errors.worst < 1e-5


@pytest.mark.parametrize(
    ("scaled", "rows", "named"),
    [
        ("post_attention_layernorm", slice(None), "gate_up_proj"),
        ("mlp.gate_up_proj", slice(-40, None), "down_proj"),
        ("self_attn.qkv_proj", slice(-8, None), "o_proj"),
    ],
)
def test_a_factor_that_nothing_divides_out_fails(case, scaled, rows, named):
    rescaled(case)[f"model.layers.1.{scaled}.weight"][rows] *= 4
    verification = case.verify()
    assert "weights" in failures(verification)
    assert any(
        f"model.layers.1.{p}.{named}" in r
        for r in verification.reasons
        for p in ("mlp", "self_attn")
    )


def test_a_gain_where_the_checkpoint_has_none_is_an_error(case):
    weights, source = case.artifact.weights, case.truth.checkpoint
    name = "model.layers.0.input_layernorm.weight"
    factors = ChannelFactors(source.architecture.network)
    (weight,) = (one for one in source.architecture.weights() if one.name == name)
    true, stored = weights[name].copy(), weights[name].copy()
    true[3], stored[5] = 0, 0
    undone = factors.undone(weight, 0, stored, true)
    assert undone[3] == stored[3] != 0
    assert undone[5] == 0 != true[5]
    np.testing.assert_allclose(np.delete(undone, [3, 5]), np.delete(true, [3, 5]))


def test_a_flipped_exponent_bit_fails(case):
    weight = case.artifact.weights["model.layers.1.self_attn.qkv_proj.weight"]
    weight.reshape(-1).view(np.uint32)[777] ^= 1 << 30
    verification = case.verify()
    assert "weights" in failures(verification)


def test_a_nan_fails_and_nothing_is_run(case):
    case.artifact.weights["model.norm.weight"][3] = np.nan
    verification = case.verify()
    assert failures(verification) == {"tensors"}
    assert verification.figures is None
    assert "model.norm.weight decodes to NaN" in verification.reasons[0]
    json.dumps(verification.as_json(), allow_nan=False)


def test_a_missing_tensor_fails(case):
    del case.artifact.weights["model.layers.0.mlp.gate_up_proj.weight"]
    verification = case.verify()
    assert failures(verification) == {"tensors"}
    assert "model.layers.0.mlp.gate_up_proj.weight" in verification.reasons[0]


def test_a_misshaped_tensor_fails(case):
    weights = case.artifact.weights
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:, :-1]
    assert failures(case.verify()) == {"tensors"}


def test_an_unexplained_tensor_fails(case):
    entry = case.artifact.entries()[0]
    case.artifact.extra.append(replace(entry, name="lora.down", nbytes=64))
    verification = case.verify()
    assert failures(verification) == {"extra tensors"}


def test_a_wrong_rotary_base_fails(case):
    case.artifact.architecture = with_rope(case.artifact.architecture, theta=500.0)
    verification = case.verify()
    assert {"metadata", "divergence"} <= failures(verification)
    assert any("rope theta is 500, expected 10000" in reason for reason in verification.reasons)


def test_a_wrong_norm_epsilon_fails(case):
    case.artifact.architecture = replace(case.artifact.architecture, norm_epsilon=1e-6)
    assert "metadata" in failures(case.verify())


def test_a_runtime_that_rotates_otherwise_than_the_metadata_say_fails(case):
    other = FakeArtifact(case.path, case.truth.checkpoint)
    other.architecture = with_rope(other.architecture, theta=500.0)
    wrong = FakeRunner(other, case.truth.tokenizer, case.ends)
    verification = case.verify(logits=wrong.logits)
    assert {"runtime", "divergence"} <= failures(verification)
    assert "metadata" not in failures(verification)


def test_a_missing_end_of_sequence_fails(case):
    case.ends = case.ends[:1]
    verification = case.verify()
    assert failures(verification) == {"stopping rule"}
    assert "<|end|>" in verification.reasons[0]


def test_stopping_at_an_ordinary_token_fails(case):
    common = int(case.truth.windows[0][0])
    case.ends = (*case.ends, common)
    assert "stopping rule" in failures(case.verify())


def test_a_generation_that_does_not_stop_fails(case):
    """The rule is right, but the loop does not obey it."""
    head = case.artifact.weights["lm_head.weight"]
    head[case.ends[0]] *= 20  # now an end leads somewhere in any text
    verification = case.verify(
        generate=lambda prompt, limit: Generation((1,) * limit, "x", False, 1.0)
    )
    assert "generation" in failures(verification)


def test_a_generation_that_stops_is_observed(case):
    case.artifact.weights["lm_head.weight"][case.ends[0]] *= 20
    verification = case.verify()
    (check,) = (check for check in verification.checks if check.name == "generation")
    assert check.outcome is Outcome.PASSED
    assert "<|endoftext|>" in check.finding


def test_no_end_in_sight_is_not_a_pass(case):
    for end in case.ends:
        case.artifact.weights["lm_head.weight"][end] = 0
    verification = case.verify(
        generate=lambda prompt, limit: Generation((1,) * limit, "x", False, 1.0)
    )
    assert outcomes(verification)["generation"] is Outcome.UNOBSERVED


def test_other_tokens_fail(case):
    tokenizer = case.truth.tokenizer

    def off(text):
        return [token + (token == 40) for token in tokenizer.encode(text)]

    verification = case.verify(tokenize=off)
    assert failures(verification) == {"tokens"}


def test_white_space_beside_special_tokens_is_a_limitation(case):
    tokenizer = case.truth.tokenizer
    verification = case.verify(tokenize=lambda text: tokenizer.encode(text.replace("> b", ">b")))
    assert outcomes(verification)["spacing"] is Outcome.LIMITED
    assert verification.passed


def test_coarse_rounding_fails_a_fine_artifact(case):
    """16 bits a weight on disk, but only three levels: what was written is not what was meant."""
    case.artifact = FakeArtifact(case.path, case.truth.checkpoint, steps=3)
    assert "divergence" in failures(case.verify())


def test_the_limit_can_be_set(case):
    assert "divergence" in failures(case.verify(replace(SETTINGS, max_kl=1e-12)))
    case.artifact = FakeArtifact(case.path, case.truth.checkpoint, steps=3)
    assert "divergence" not in failures(case.verify(replace(SETTINGS, max_kl=100.0)))


def test_non_finite_logits_fail(case):
    def broken(tokens, last=None):
        logits = case.runner.forward.logits(tokens)
        logits[-1, 5] = np.nan
        return logits

    verification = case.verify(logits=broken)
    assert {"runtime", "divergence"} <= failures(verification)
    json.dumps(verification.as_json(), allow_nan=False)


def test_a_runtime_that_refuses_the_artifact_fails_it(case):
    case.use(ArtifactError("the runtime says no"))
    verification = verify(case.path, case.truth, SETTINGS)
    assert failures(verification) == {"runtime"}
    assert "the runtime says no" in verification.reasons[0]


def test_no_artifact_at_all_is_an_error(case, tmp_path):
    case.use(None)
    with pytest.raises(ArtifactError, match="no artifact of a known runtime"):
        verify(tmp_path / "model", case.truth, SETTINGS)
    with pytest.raises(ArtifactError, match="found nothing"):
        verify(tmp_path / "nowhere", case.truth, SETTINGS)


def test_a_slow_runtime_is_measured_by_the_reference_over_its_weights(case):
    runs = []

    def logits(tokens, last=None):
        runs.append(len(tokens))
        return case.runner.forward.logits(tokens)

    quick = case.verify()
    slow = case.verify(slow=True, logits=logits)
    assert slow.measured_in == "the reference forward over the decoded weights"
    assert slow.parity.tokens == SLOW_RUN == runs[0]
    assert max(runs[1:]) < 48, "what follows is the answer; no window goes through the runtime"
    assert quick.parity.tokens == 48
    assert len(slow.answer.tokens) <= SETTINGS.answer // 4
    assert slow.figures.mean.value == pytest.approx(quick.figures.mean.value, rel=1e-3)
    assert slow.parity.mean_kl < 1e-9


def test_the_first_windows_give_the_figures_that_they_alone_give(case):
    first = case.truth.first(2)
    alone = ReferenceFigures.measure(case.truth.checkpoint.directory, replace(SETTINGS, windows=2))
    assert first.sample == alone.sample
    case.verify()
    figures = [verify(case.path, truth, SETTINGS).figures for truth in (first, alone)]
    assert figures[0] == figures[1]
    assert figures[0].positions == 2 * 48


def test_kept_logits_are_those_that_are_computed_anew(case):
    kept = case.truth.with_logits()
    assert len(kept.kept) == len(kept.windows)
    for window in range(len(kept.windows)):
        np.testing.assert_array_equal(kept.logits(window), case.truth.logits(window))
    first = kept.first(2)
    assert len(first.kept) == 2
    case.verify()
    figures = [verify(case.path, truth, SETTINGS).figures for truth in (kept, case.truth)]
    assert figures[0] == figures[1]


def test_a_generation_is_watched_after_the_shortest_prompt_that_clearly_ends():
    """A slow runtime takes long for a long prompt."""
    logits = np.zeros((6, 4), np.float32)
    logits[1, 3], logits[2, 3], logits[4, 3], logits[5, 1] = 0.4, 0.6, 9, 9
    tokens = np.arange(6, dtype=np.int32)
    places = likely_ends(tokens, logits, [1, 3])
    prompts = {end: place.prompt.tolist() for end, place in places.items()}
    assert prompts == {3: [0, 1, 2], 1: [0, 1, 2, 3, 4, 5]}


class TestLongRope:
    @pytest.fixture
    def case(self, tmp_path, monkeypatch):
        return Case(tmp_path, monkeypatch, **longrope(16))

    def test_both_sides_right(self, case):
        verification = case.verify()
        assert verification.passed, verification.reasons
        assert outcomes(verification)["LongRoPE"] is Outcome.PASSED

    def test_one_side_undeclared_fails(self, case):
        """The runtime keeps to the short factors, though the metadata have both."""
        other = FakeArtifact(case.path, case.truth.checkpoint)
        long = other.architecture.rope.long
        other.architecture = with_rope(
            other.architecture, long=replace(long, long_factors=long.short_factors)
        )
        stuck = FakeRunner(other, case.truth.tokenizer, case.ends)
        verification = case.verify(logits=stuck.logits)
        assert failures(verification) == {"LongRoPE"}
        assert "does not use the long factors" in verification.reasons[0]

    def test_one_side_declared_is_a_limitation(self, case):
        long = case.artifact.architecture.rope.long
        case.artifact.architecture = with_rope(
            case.artifact.architecture, long=replace(long, long_factors=long.short_factors)
        )
        verification = case.verify()
        assert verification.passed, verification.reasons
        assert outcomes(verification)["LongRoPE"] is Outcome.LIMITED
        assert outcomes(verification)["metadata"] is Outcome.LIMITED

    def test_the_long_side_alone_is_measured_as_such(self, case):
        long = case.artifact.architecture.rope.long
        case.artifact.architecture = with_rope(
            case.artifact.architecture, long=replace(long, short_factors=long.long_factors)
        )
        verification = case.verify()
        assert verification.passed, verification.reasons
        assert outcomes(verification)["LongRoPE"] is Outcome.LIMITED

    def test_wrong_factors_fail(self, case):
        long = case.artifact.architecture.rope.long
        case.artifact.architecture = with_rope(
            case.artifact.architecture,
            long=replace(long, long_factors=long.long_factors[::-1]),
        )
        assert {"metadata", "LongRoPE"} <= failures(case.verify())

    def test_it_can_be_left_out(self, case):
        assert "LongRoPE" not in outcomes(case.verify(replace(SETTINGS, boundary=False)))


class TestSlidingWindow:
    """A window of 60 tokens in a context of 256; the measured text comes in pieces of 48."""

    @pytest.fixture
    def case(self, tmp_path, monkeypatch):
        return Case(tmp_path, monkeypatch, sliding_window=60)

    @pytest.fixture
    def full(self, case):
        """A runtime that attends to all tokens, whatever the artifact says."""
        own = FakeArtifact(case.path, case.truth.checkpoint)
        own.architecture = replace(own.architecture, sliding_window=None)
        forward = Reference(own)
        return lambda tokens, last=None: forward.logits(tokens)[-(last or len(tokens)) :]

    def test_a_runtime_with_the_window_passes(self, case):
        verification = case.verify()
        assert verification.passed, verification.reasons
        assert outcomes(verification)["sliding window"] is Outcome.PASSED

    def test_a_runtime_without_it_is_limited_where_the_artifact_says_so(self, case, full):
        architecture = case.artifact.architecture
        case.artifact.architecture = replace(architecture, sliding_window=None)
        verification = case.verify(logits=full)
        assert verification.passed, verification.reasons
        assert outcomes(verification)["sliding window"] is Outcome.LIMITED
        assert outcomes(verification)["metadata"] is Outcome.LIMITED
        assert any(
            "last 60 tokens and the artifact to all" in reason for reason in verification.reasons
        )
        assert any("up to 60 tokens" in reason for reason in verification.reasons)

    def test_a_runtime_without_it_fails_where_the_artifact_has_it(self, case, full):
        assert failures(case.verify(logits=full)) == {"sliding window"}

    def test_it_can_be_left_out(self, case):
        verification = case.verify(replace(SETTINGS, boundary=False))
        assert "sliding window" not in outcomes(verification)


def test_a_runtime_that_reads_the_own_tokenizer_otherwise_is_a_limitation(case):
    """On rare characters only; ordinary text must agree, and the file must be the checkpoint's."""
    encode = case.truth.tokenizer.encode

    def without_null(text):
        return [] if "\0" in text else encode(text)

    assert "tokens" in failures(case.verify(tokenize=without_null))
    own = case.truth.checkpoint.directory / "tokenizer.json"
    (case.path / "tokenizer.json").write_bytes(own.read_bytes())
    verification = case.verify(tokenize=without_null)
    assert verification.passed
    assert any("rare characters" in reason for reason in verification.reasons)
    assert "tokens" in failures(case.verify(tokenize=lambda text: encode(text)[:1]))
