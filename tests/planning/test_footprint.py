"""The terms of each runtime's memory; benchmarks/device_memory.py has the runtimes themselves."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from command_line import environment, tiny_model
from phiquant.job.making import quantize
from phiquant.phi.family import family
from phiquant.phi.outline import read_outline
from phiquant.phi.source import Source
from phiquant.planning.footprint import Use, cached_values, multiplied, multiplied_weights
from phiquant.planning.precision import PRECISIONS
from phiquant.recipe import Recipe
from phiquant.targets.table import target, targets

PHI = family()["Phi-4-mini-instruct"]


def footprint(name, use, type=None, precision="int4", outline=PHI, **options):
    of = target(name)
    form = Recipe(name, precision, type, options=options).form
    plan = of.plan(outline.architecture, outline.survey, form)
    return of.footprint(plan, form, outline.architecture, use)


@pytest.mark.parametrize("name", [one.name for one in targets()])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_terms_grow_with_what_they_stand_for(name, precision):
    base = footprint(name, Use(2048, 512), precision=precision)
    longer = footprint(name, Use(4096, 512), precision=precision)
    prompt = footprint(name, Use(2048, 1024), precision=precision)
    assert longer.cache == 2 * base.cache
    assert longer.weights == base.weights
    assert prompt.working >= base.working
    assert prompt.cache == base.cache
    assert base.total >= base.needed >= base.cache + base.working
    assert base.as_json()["needed"] == base.needed


def test_standard_operators_hold_two_caches_and_the_scores_of_attention():
    """As measured with onnxruntime-genai; Phi-4-mini has 24 heads."""
    fused, standard = (
        footprint("onnx", Use(2048, 2048), **options) for options in ({}, {"qdq": "true"})
    )
    assert standard.cache == 2 * fused.cache
    assert standard.working - fused.working == 2 * 4 * 24 * 2048**2
    assert standard.copies > fused.copies == 0
    short = footprint("onnx", Use(2048, 128), qdq="true")
    assert (short.cache, short.working) == (standard.cache, 0)


def test_what_is_cached_and_what_is_multiplied_by():
    assert cached_values(PHI.architecture) == 2 * 32 * 8 * 128
    plan = target("gguf").plan(PHI.architecture, PHI.survey, Recipe("gguf", "fp32").form)
    tied = multiplied_weights(plan)
    assert multiplied(plan) == 4 * tied
    untied = replace(PHI.architecture, tied_head=False)
    names = dict.fromkeys([*PHI.survey.largest, "lm_head.weight"], 0.0)
    survey = replace(PHI.survey, largest=names)
    other = target("gguf").plan(untied, survey, Recipe("gguf", "fp32").form)
    assert multiplied_weights(other) == tied


def test_phi_4_mini_as_a_user_of_llama_cpp_saw_it():
    """4.3 GB in use for Q4_0, which is repacked: issue 12149 of llama.cpp."""
    memory = footprint("gguf", Use(4096, 512), "Q4_0")
    assert memory.total == pytest.approx(4.3 * 1.0737e9, rel=0.15)
    assert memory.released == memory.copies > 1.5e9


def test_providers_have_their_own_caches():
    assert footprint("onnx", Use(1024, 16)).cache_type == "f32"
    assert footprint("onnx", Use(1024, 16, "cuda")).cache_type == "f16"
    assert footprint("openvino", Use(1024, 16)).cache_type == "u8"
    assert footprint("openvino", Use(1024, 16, "gpu")).copies == 0
    assert footprint("gguf", Use(1024, 16, "cuda")).copies == 0


RUN = """
import re, sys
from pathlib import Path
from phiquant.targets.gguf.library import library

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

c = library().c
model = c.llama_model_load_from_file(sys.argv[1].encode(), c.llama_model_default_params())
for context in map(int, sys.argv[2:]):
    state = c.llama_init_from_model(model, library().context_parameters(n_ctx=context))
    assert state
    print("PEAK", peak())
    c.llama_free(state)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_cache_is_what_llama_cpp_allocates(tmp_path):
    """In the runtime itself: the same model with a long context and with a longer one."""
    model = tiny_model(tmp_path / "tiny", num_hidden_layers=16, max_position_embeddings=65536,
                       original_max_position_embeddings=65536)  # fmt: skip
    (made,) = quantize(model, [Recipe("gguf")], tmp_path / "out")
    (file,) = made.path.glob("*.gguf")
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(file), "16384", "65536"],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    short, long = map(int, re.findall(r"PEAK (\d+)", ended.stdout))
    outline = read_outline(Source(model, "tiny"))
    terms = [footprint("gguf", Use(context, 1), outline=outline) for context in (16384, 65536)]
    assert long - short == pytest.approx(terms[1].cache - terms[0].cache, rel=0.15)
