"""The reference forward against transformers' logits (golden/), and against itself."""

import json
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from golden_models import CASES, FormulaWeights, tokens_of

from phiquant.errors import InputError
from phiquant.phi.config import read_architecture
from phiquant.phi.reference import Reference

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4

MODELS = json.loads((GOLDEN / "models.json").read_text())["models"]


@pytest.fixture(scope="module")
def goldens():
    with np.load(GOLDEN / "logits.npz") as stored:
        return dict(stored)


def reference(case: str, schema: str = "classic", resident: bool = True) -> Reference:
    return Reference(FormulaWeights(read_architecture(MODELS[case][schema])), resident)


def difference(left, right) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


def test_the_goldens_cover_every_case_and_belong_to_these_weights(goldens):
    assert MODELS.keys() == CASES.keys()
    lengths = {f"{name}/{length}" for name, case in CASES.items() for length in case.lengths}
    assert {key for key in goldens if not key.endswith("generated")} == lengths
    for name, model in MODELS.items():
        assert model["classic"] == CASES[name].config
        assert FormulaWeights(read_architecture(model["classic"])).checksum() == model["weights"]


@pytest.mark.parametrize("schema", ["classic", "modern"])
@pytest.mark.parametrize(("case", "length"), [(n, k) for n, c in CASES.items() for k in c.lengths])
def test_logits_agree_with_transformers(goldens, case, length, schema):
    logits = reference(case, schema).logits(tokens_of(case, length))
    expected = goldens[f"{case}/{length}"]
    assert logits.dtype == np.float32
    assert len(logits) == length
    assert np.abs(expected).max() > 1  # else 1e-4 would prove little
    assert difference(logits[-len(expected) :], expected) <= TOLERANCE


@pytest.mark.parametrize("case", [name for name in CASES if name != "longrope_4096"])
def test_decoding_step_by_step_equals_the_full_pass(case):
    model = reference(case)
    tokens = tokens_of(case, max(CASES[case].lengths))
    boundary = model.architecture.rope.long.original_positions if "long" in case else len(tokens)
    steps, cache = [], None
    for first, last in ((0, 3), (3, 4), *((i, i + 1) for i in range(4, len(tokens)))):
        if last <= len(tokens):
            logits, cache = model.extend(tokens[first:last], cache)
            steps.append(logits)
    steps = np.concatenate(steps)
    assert difference(steps[:boundary], model.logits(tokens[:boundary])) <= TOLERANCE
    if boundary < len(tokens):
        assert difference(steps[boundary:], model.logits(tokens)[boundary:]) <= TOLERANCE
    assert np.array_equal(cache.tokens, tokens)


@pytest.mark.parametrize("case", ["longrope", "longrope_partial"])
def test_a_chunk_that_crosses_the_boundary_recomputes_the_sequence(case):
    model, tokens = reference(case), tokens_of(case, 50)
    _, cache = model.extend(tokens[:30])
    logits, cache = model.extend(tokens[30:], cache)
    assert difference(logits, model.logits(tokens)[30:]) <= TOLERANCE
    # What a stale cache would have cost, as measured in transformers: no small matter.
    assert MODELS[case]["stale_cache_difference"] > 1


@pytest.mark.parametrize("case", ["longrope", "longrope_partial"])
def test_greedy_generation_across_the_boundary(goldens, case):
    assert MODELS[case]["generate_agrees"]
    prompt, expected = tokens_of(case, 32)[:28], goldens[f"{case}/generated"].tolist()
    model = reference(case)
    assert model.generate(prompt, 12) == expected
    stop = expected[4]
    assert model.generate(prompt, 12, frozenset({stop})) == expected[: expected.index(stop) + 1]


@pytest.mark.parametrize("case", ["longrope_partial", "grouped_tied"])
def test_windows_are_sequences_of_their_own(case):
    model = reference(case)
    windows = [tokens_of(case, length) for length in (5, 33, 1, 32)]
    together = model.hidden_states(windows)
    for window, hidden in zip(windows, together, strict=True):
        assert difference(model.head(hidden), model.logits(window)) <= TOLERANCE
    assert model.hidden_states([]) == []


class Watched(FormulaWeights):
    """Weights that note the greatest number read at a time, and how often each row is read."""

    def __init__(self, architecture):
        super().__init__(architecture)
        self.largest = 0
        self.total = 0
        self.noting = Lock()

    def weight(self, name, first=0, last=None):
        read = super().weight(name, first, last)
        with self.noting:
            self.largest = max(self.largest, read.size)
            self.total += read.size
        return read


@pytest.mark.parametrize("case", ["longrope_partial", "own_head_size"])
def test_weights_are_read_once_for_all_windows_and_in_bands(monkeypatch, case):
    source = Watched(read_architecture(MODELS[case]["classic"]))
    tokens = tokens_of(case, 33)
    expected = reference(case).logits(tokens)
    monkeypatch.setattr("phiquant.phi.network.linear.BAND", 1000)
    model = Reference(source)
    assert difference(model.logits(tokens), expected) <= TOLERANCE
    embedding = source.architecture.vocabulary_size * source.architecture.hidden_size
    assert source.largest <= embedding
    source.total = 0
    model.hidden_states([tokens] * 7)
    weights = source.architecture.weights()
    assert source.total <= sum(int(np.prod(weight.shape)) for weight in weights)


def test_rows_of_the_embedding_are_read_where_they_are_needed():
    vocabulary = 5000
    config = MODELS["full_heads"]["classic"] | {"vocab_size": vocabulary}
    source = Watched(read_architecture(config))
    tokens = np.array([4999, 3, 2000, 2001, 3, 0], np.int32)
    expected = Reference(source, resident=True).hidden_states([tokens])
    source.total = 0
    hidden = Reference(source).hidden_states([tokens])
    assert np.array_equal(hidden[0], expected[0])
    assert source.total < 80_000 < vocabulary * source.architecture.hidden_size


@pytest.mark.parametrize("tokens", [[97], [-1], [], [[1, 2]]])
def test_what_is_no_sequence_of_the_vocabulary_is_refused(tokens):
    with pytest.raises(InputError, match=r"Token id|one row"):
        reference("full_heads").logits(np.array(tokens, np.int32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_give_broken_logits_and_no_warning(value):
    class Broken(FormulaWeights):
        def weight(self, name, first=0, last=None):
            read = super().weight(name, first, last)
            return read * np.float32(value) if "down_proj" in name else read

    logits = Reference(Broken(read_architecture(MODELS["full_heads"]["classic"]))).logits(
        np.arange(5, dtype=np.int32)
    )
    assert not np.isfinite(logits).all()
