"""The whole flow: one reading for all targets, and memory that does not grow with the model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import phiquant.job.streaming
from command_line import environment, tiny_model
from phiquant.errors import RequestError
from phiquant.job.making import quantize
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.config import read_architecture
from phiquant.recipe import Recipe
from tiny_models import tiny_config, to_bf16_bits

MEASURED = """
import os, re, sys
from pathlib import Path

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # a few bands are held for each core

from phiquant.job import streaming
from phiquant.job.making import quantize
from phiquant.recipe import Recipe

streaming.WAITING = 1 << 20  # however slow the disk is

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

peak = 0
def look(_):
    global peak
    peak = max(peak, anonymous())

small, large, out = map(Path, sys.argv[1:])
quantize(small, [Recipe("gguf"), Recipe("mlx")], out / "warm")  # kernels compiled, pools started
for model in (small, large):
    before = peak = anonymous()
    quantize(model, [Recipe("gguf"), Recipe("mlx")], out / model.name, look)
    print(peak - before, peak)
"""


def write_large(directory, **changes):
    """A checkpoint of `changes` with random BF16 weights, written tensor by tensor."""
    tiny_model(directory, vocab_size=512)
    config = tiny_config(**changes)
    weights = read_architecture(config).weights()
    header, end = {}, 0
    for weight in weights:
        nbytes = 2 * int(np.prod(weight.shape))
        header[weight.name] = {
            "dtype": "BF16",
            "shape": weight.shape,
            "data_offsets": [end, end + nbytes],
        }
        end += nbytes
    text = json.dumps(header).encode()
    noise = to_bf16_bits(np.random.default_rng(1).normal(0, 0.02, 1 << 20).astype(np.float32))
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(end // noise.nbytes + 1):
            file.write(noise.tobytes())
        file.truncate(8 + len(text) + end)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """40 and 160 MB of weights: what is held is a few bands, whatever the model's size."""
    shape = {"hidden_size": 768, "intermediate_size": 2048, "vocab_size": 8192}
    small = write_large(tmp_path / "small", num_hidden_layers=1, **shape)
    large = write_large(tmp_path / "large", num_hidden_layers=9, **shape)
    sizes = [(path / "model.safetensors").stat().st_size for path in (small, large)]
    assert sizes[1] > 3 * sizes[0] > 100e6
    script = tmp_path / "measure.py"
    script.write_text(MEASURED)
    done = subprocess.run(
        [sys.executable, str(script), str(small), str(large), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, _, second, peak = map(int, done.stdout.split())
    assert second < first + 40e6, done.stdout
    assert peak < 800e6, done.stdout


def test_two_targets_take_one_reading(tmp_path, monkeypatch):
    model = tiny_model(tmp_path / "model")
    monkeypatch.setattr(phiquant.job.streaming, "BAND", 5000)
    read = []
    weight = Checkpoint.weight

    def counted(self, name, first=0, last=None):
        read.append((name, first))
        return weight(self, name, first, last)

    monkeypatch.setattr(Checkpoint, "weight", counted)
    blind = [Recipe("gguf", quality="data-free"), Recipe("mlx", "int8", quality="data-free")]
    quantize(model, blind[:1], tmp_path / "one")
    alone, read[:] = list(read), []
    quantize(model, blind, tmp_path / "two")
    assert sorted(read) == sorted(alone)
    assert len(set(read)) == len(read) > 30


def test_the_destination_appears_last_and_whole(tmp_path):
    model = tiny_model(tmp_path / "model")
    output = tmp_path / "out"
    seen = set()

    def watch(progress):
        seen.add(progress.stage)
        assert not output.exists()

    made = quantize(model, [Recipe("mlx"), Recipe("gguf")], output, watch)
    assert seen == {"checking", "calibrating", "quantizing"}
    assert [one.path for one in made] == [output / "mlx", output / "gguf"]
    assert all((one.path / "phiquant.json").is_file() for one in made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    mode = output.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    assert mode == 0o777 & ~mask


@pytest.mark.parametrize("names", [[], ["gguf", "gguf"], ["gguf", "nonsense"]])
def test_targets_must_be_known_and_different(tmp_path, names):
    model = tiny_model(tmp_path / "model")
    with pytest.raises(RequestError):
        quantize(model, [Recipe(name) for name in names], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_relative_destination(tmp_path, monkeypatch):
    model = tiny_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (made,) = quantize("model", [Recipe("gguf", type="Q8_0")], Path("out"))
    assert made.path == Path("out")
    assert (tmp_path / "out" / "model-Q8_0.gguf").is_file()
    assert model.is_dir()
