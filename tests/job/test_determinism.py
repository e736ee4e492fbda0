"""The same bytes from the same weights and request, whatever is different around the command."""

import hashlib
import platform
import subprocess
import sys

import pytest

from command_line import call, environment, run, tiny_model

TEXT = ("--calibration", "text.txt", "--calibration-size", "2x96")
REQUESTS = {
    "data-free": ("--quality", "data-free"),
    "fast": (),
    "balanced": ("--quality", "balanced", *TEXT),
    "best": ("--quality", "best", *TEXT),
}
TARGETS = {
    "data-free": "gguf,mlx,onnx,openvino",
    "fast": "gguf,mlx,onnx,openvino",
    "balanced": "gguf,mlx",
    "best": "mlx",
}
CORES = """
import os
number = int(os.environ["TEST_CORES"])
os.sched_getaffinity = lambda process: set(range(number))
os.cpu_count = lambda: number
"""
ONE = {"TEST_CORES": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C", "OPENBLAS_NUM_THREADS": "1"}
OTHER = {"PYTHONHASHSEED": "77", "LC_ALL": "tr_TR.UTF-8", "OPENBLAS_NUM_THREADS": "3"}
NARROW = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
"""What NumPy is told to leave unused of this processor, where it has it."""
GRID = """
import hashlib, sys
import numpy as np
from phiquant.targets.table import target
weights = (0.02 * np.random.default_rng(0).standard_t(3, (64, 512))).astype(np.float32)
for name in sys.argv[1:]:
    where, _, kind = name.partition(" ")
    parts = target(where).grids[kind].encode(weights)
    print(name, hashlib.sha256(b"".join(parts[key].tobytes() for key in sorted(parts))).hexdigest())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a model of several bands of weights, a text and the hook for cores."""
    directory = tmp_path_factory.mktemp("determinism")
    shape = {"hidden_size": 192, "num_attention_heads": 6, "num_key_value_heads": 3}
    tiny_model(directory / "model", **shape, intermediate_size=384, vocab_size=4096)
    (directory / "text.txt").write_text("Some words, and then other words after them. " * 60)
    (directory / "hooks").mkdir()
    (directory / "hooks" / "sitecustomize.py").write_text(CORES)
    return directory


def contents(directory):
    """Path → hash of every file that was made, but the records, which tell the time."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("phiquant.json", "README.md")
    }


def made(place, output, model, request, environ, cwd):
    words = ("quantize", model, *request, "-o", output, "-q")
    ended = run(*words, first_on_path=place / "hooks", environ=environ, cwd=cwd)
    assert ended.code == 0, ended.err
    return contents(cwd / output)


@pytest.fixture(scope="module")
def base(place):
    """What each request makes on one core; made when it is first asked for."""
    known = {}

    def of(quality):
        if quality not in known:
            request = ("--to", TARGETS[quality], *REQUESTS[quality])
            known[quality] = made(place, f"one-{quality}", "model", request, ONE, place)
        return known[quality]

    return of


@pytest.mark.parametrize(
    "quality",
    [
        "fast",
        pytest.param("data-free", marks=pytest.mark.long),
        pytest.param("balanced", marks=pytest.mark.long),
        "best",
    ],
)
def test_cores_locale_hashes_directory_and_order_do_not_show(base, place, tmp_path, quality):
    """All of them changed at once: three cores, another order of targets, and another directory in
    which the model and the text have other paths.
    """
    reverse = ",".join(reversed(TARGETS[quality].split(",")))
    there = tmp_path / "an other place"
    there.mkdir()
    (there / "text.txt").write_bytes((place / "text.txt").read_bytes())
    request = ("--to", reverse, *REQUESTS[quality])
    environ = {**OTHER, "TEST_CORES": "3"}
    assert made(place, "deep/er/out", place / "model", request, environ, there) == base(quality)


@pytest.mark.long
def test_two_cores_too(base, place):
    request = ("--to", TARGETS["best"], *REQUESTS["best"])
    assert made(place, "two", "model", request, {**ONE, "TEST_CORES": "2"}, place) == base("best")


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_a_target_alone_is_what_it_is_beside_others(base, place, tmp_path, monkeypatch, quality):
    monkeypatch.chdir(place)
    together = base(quality)
    for target in TARGETS[quality].split(","):
        output = tmp_path / target
        ended = call("quantize", "model", "--to", target, *REQUESTS[quality], "-o", output, "-q")
        assert ended.code == 0, ended.err
        alone = {f"{target}/{name}": digest for name, digest in contents(output).items()}
        assert alone == {k: v for k, v in together.items() if k.startswith(f"{target}/")}


def test_numpys_and_openblas_kernels_do_not_show_without_a_text(base, place):
    """On two cores besides."""
    narrow = {"NPY_DISABLE_CPU_FEATURES": NARROW, "OPENBLAS_CORETYPE": "Prescott"}
    environ = {**ONE, "TEST_CORES": "2", **narrow}
    request = ("--to", TARGETS["data-free"], *REQUESTS["data-free"])
    assert made(place, "narrow", "model", request, environ, place) == base("data-free")


def grids(names, **changes):
    words = [sys.executable, "-W", "error", "-c", GRID, *names]
    return subprocess.run(
        words, capture_output=True, text=True, env=environment(**changes), check=True
    ).stdout


@pytest.mark.long
def test_the_width_of_vectors_does_not_show():
    """Kernels for a processor with vectors half as wide; the first time they are compiled."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("numba is told to compile for another processor of this kind, an x86-64")
    names = [
        "gguf Q8_0",
        "mlx 4bit-g64 BF16",
        "gguf Q4_K",
        "gguf Q6_K",
        "onnx int4-b32 F32",
        "openvino i4 g64",
    ]
    haswell = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}  # no more than it has
    narrow = grids(names, **haswell)
    assert narrow == grids(names)
    assert narrow.count("\n") == len(names)
