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
running = genai.Generator(model, genai.GeneratorParams(model))
running.append_tokens([100, 101, 102])
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
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
    assert f"1 to {POSITIONS} tokens" in refused.err
    told = call("plan", long_model, "--to", "onnx", "--context", 20000).out
    assert re.search(r"20,000 tokens.*82 MB of keys and values", " ".join(told.split()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_cache_is_what_genai_allocates(long_model, tmp_path):
    """In the runtime itself, with nothing set by the caller: 4,096 tokens, and all positions."""
    peaks, caches = [], []
    outline = read_outline(Source(long_model, "tiny"))
    for context in (4096, POSITIONS):
        path, _ = made(long_model, tmp_path / str(context), "--context", context)
        words = [sys.executable, "-c", PEAK, str(path)]
        ended = subprocess.run(
            words, capture_output=True, text=True, check=True, env=environment(), timeout=120
        )
        peaks.append(int(ended.stdout))
        plan = TARGET.plan(outline.architecture, outline.survey, Recipe("onnx", context=context))
        caches.append(TARGET.footprint(plan, outline.architecture, Use(context, 1)).cache)
    assert peaks[1] - peaks[0] == pytest.approx(caches[1] - caches[0], rel=0.15)
