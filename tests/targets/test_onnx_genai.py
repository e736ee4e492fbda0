"""What callers of onnxruntime-genai do besides one generation: batches and continuations."""

import json

import numpy as np
import pytest
from onnx_tiny import some_tokens, tiny_source, write_artifact

genai = pytest.importorskip("onnxruntime_genai")
pytest.importorskip("onnx_ir")

WINDOW = 9
FORMS = {"fused": "false", "standard": "true"}


@pytest.fixture(scope="module", params=FORMS)
def loaded(request, tmp_path_factory):
    """A model with a sliding window in genai, and its padding token."""
    root = tmp_path_factory.mktemp("genai")
    source = tiny_source(root / "source", dtype="F32", sliding_window=WINDOW)
    write_artifact(source, root / "out", "fp32", qdq=FORMS[request.param])
    config = json.loads((root / "out" / "genai_config.json").read_text())
    return genai.Model(str(root / "out")), config["model"]["pad_token_id"]


def generator(model, batch=1, length=120):
    """A generator that does not stop before `length`."""
    options = genai.GeneratorParams(model)
    options.set_search_options(
        batch_size=batch, max_length=length, min_length=length, do_sample=False
    )
    return genai.Generator(model, options)


def generated(loaded, prompts, count=12):
    """The tokens that follow each of `prompts`, which genai pads on the right."""
    model, pad = loaded
    width = max(map(len, prompts))
    padded = np.full((len(prompts), width), pad, np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    running = generator(model, len(prompts))
    running.append_tokens(padded)
    for _ in range(count):
        running.generate_next_token()
    return [running.get_sequence(row)[width:].tolist() for row in range(len(prompts))]


def test_a_batch_gives_what_single_runs_give(loaded):
    """The short prompt's own tokens lie behind more padding than the window is wide."""
    prompts = [some_tokens(24), some_tokens(40)[30:]]
    alone = [generated(loaded, [prompt])[0] for prompt in prompts]
    assert len(set(alone[1])) > 3
    assert generated(loaded, prompts) == alone


def logits(running):
    return running.get_logits()[0, -1].copy()


def test_tokens_can_be_appended_in_pieces(loaded):
    model, _ = loaded
    tokens = some_tokens(40)
    whole, pieces = generator(model), generator(model)
    whole.append_tokens(tokens)
    for piece in (tokens[:17], tokens[17:18], tokens[18:]):
        pieces.append_tokens(piece)
    np.testing.assert_allclose(logits(pieces), logits(whole), atol=1e-4)


def test_both_forms_go_on_alike_after_a_generation(tmp_path):
    """genai never runs the token that it generated last; its place in the cache is zero."""
    source = tiny_source(tmp_path / "source", dtype="F32")
    tokens, answers = some_tokens(30), {}
    for form, qdq in FORMS.items():
        write_artifact(source, tmp_path / form, "fp32", qdq=qdq)
        running = generator(genai.Model(str(tmp_path / form)))
        running.append_tokens(tokens[:20])
        for _ in range(3):
            running.generate_next_token()
        running.append_tokens(tokens[20:])
        answers[form] = logits(running)
        for _ in range(3):
            running.generate_next_token()
        answers[form] = (answers[form], running.get_sequence(0).tolist())
    np.testing.assert_allclose(answers["standard"][0], answers["fused"][0], atol=1e-4)
    assert answers["standard"][1] == answers["fused"][1]


def test_the_last_token_counts_when_it_is_appended_again(loaded):
    """What docs/onnx.md tells callers to do."""
    model, _ = loaded
    tokens = some_tokens(30)
    running = generator(model)
    running.append_tokens(tokens[:20])
    for _ in range(3):
        running.generate_next_token()
    sequence = running.get_sequence(0).copy()
    running.rewind_to(len(sequence) - 2)
    running.append_tokens(np.concatenate([sequence[-2:], tokens[20:]]).astype(np.int32))
    whole = generator(model)
    whole.append_tokens(np.concatenate([sequence, tokens[20:]]).astype(np.int32))
    np.testing.assert_allclose(logits(running), logits(whole), atol=1e-4)
