"""How long a sequence may get in onnxruntime-genai, and what it allocates for that."""

import json
import re
import subprocess
import sys

import pytest

from command_line import call, environment, tiny_model
from phiquant.phi.outline import read_outline
from phiquant.phi.source import Source
from phiquant.planning.footprint import Use
from phiquant.recipe import Recipe
from phiquant.targets.onnx import TARGET

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("onnx_ir")

POSITIONS = 32768

PEAK = """
import re, sys
from pathlib import Path
import onnxruntime_genai as genai

model = genai.Model(sys.argv[1])
options = genai.GeneratorParams(model)
options.set_search_options(do_sample=False)
running = genai.Generator(model, options)

def tell():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))

for _ in range(int(sys.argv[2])):
    running.append_tokens([100 + number for number in range(64)])
tell()
running.generate_next_token()
running.generate_next_token()
tell()
"""


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    return tiny_model(
        tmp_path_factory.mktemp("long") / "tiny", num_hidden_layers=8,
        max_position_embeddings=POSITIONS, original_max_position_embeddings=POSITIONS,
    )  # fmt: skip


def made(model, output, *words):
    """The artifact that the command makes, and the search options in it."""
    ended = call("quantize", model, "--to", "onnx", *words, "-o", output)
    assert ended.code == 0, ended.err
    config = json.loads((output / "genai_config.json").read_text())
    assert config["model"]["context_length"] == POSITIONS
    return output, config["search"]


def test_the_context_is_the_length_of_a_sequence(long_model, tmp_path):
    assert made(long_model, tmp_path / "usual")[1]["max_length"] == 4096
    search = made(long_model, tmp_path / "long", "--context", 20000)[1]
    assert search["max_length"] == 20000
    refused = call("plan", long_model, "--to", "onnx", "--context", POSITIONS + 1)
    assert refused.code == 2
    assert f"at most {POSITIONS}" in refused.err
    told = call("plan", long_model, "--to", "onnx", "--context", 20000).out
    assert re.search(r"20,000 tokens.*82 MB of keys and values", " ".join(told.split()))


def peaks(path, pieces):
    """VmHWM in bytes of a process that appends `pieces` times 64 tokens, and that then goes on."""
    words = [sys.executable, "-c", PEAK, str(path), str(pieces)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    return [int(line) for line in ended.stdout.split()]


def predicted(model, context):
    """The footprint of an artifact for `context` tokens that come by 64 at most."""
    outline = read_outline(Source(model, "tiny"))
    form = Recipe("onnx", context=context).form
    plan = TARGET.plan(outline.architecture, outline.survey, form)
    return TARGET.footprint(plan, form, outline.architecture, Use(context, 64))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_cache_is_what_genai_allocates(long_model, tmp_path):
    """In the runtime itself, with nothing set by the caller: 4,096 tokens, and all positions."""
    measured, expected = [], []
    for context in (4096, POSITIONS):
        path, _ = made(long_model, tmp_path / str(context), "--context", context)
        measured.append(peaks(path, 1)[0])
        expected.append(predicted(long_model, context).cache)
    assert measured[1] - measured[0] == pytest.approx(expected[1] - expected[0], rel=0.15)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_sequence_that_reaches_4097_tokens_is_computed_anew(tmp_path):
    """With the logits of each of its tokens; nothing is left of that in a shorter sequence."""
    model = tiny_model(
        tmp_path / "tiny", vocab_size=8192, num_hidden_layers=1,
        max_position_embeddings=POSITIONS, original_max_position_embeddings=POSITIONS,
    )  # fmt: skip
    path, _ = made(model, tmp_path / "out", "--context", 4200)
    before, after = peaks(path, 64)
    growth = predicted(model, 4200).working - predicted(model, 4096).working
    assert after - before == pytest.approx(growth, rel=0.15)
    before, after = peaks(path, 8)
    assert after - before < growth / 10
