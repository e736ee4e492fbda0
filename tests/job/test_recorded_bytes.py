"""Artifacts of the same weights decode to the same numbers as they did in versions before.

Recorded are hashes of everything that is decoded from an artifact, in the order of the network,
made on x86-64. What a runtime's container looks like may change with the runtime; what is stored
may not.
"""

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pytest

from command_line import call, tiny_model
from phiquant.targets.table import MODULES, target
from tiny_models import longrope

RECORDED = Path(__file__).with_name("recorded_bytes.json")
SMALL = {"hidden_size": 64, "intermediate_size": 96}
MODELS = {
    "grouped heads": {"num_key_value_heads": 2, "num_hidden_layers": 3},
    "tied, partial rotary": {
        **SMALL,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "partial_rotary_factor": 0.75,
    },
    "window, LongRoPE": {
        "num_key_value_heads": 4,
        "sliding_window": 40,
        **longrope(32, original=32),
    },
}


def decoded(path, name):
    artifact = target(name).open(path)
    digest = hashlib.sha256()
    for weight in artifact.architecture.weights():
        digest.update(np.ascontiguousarray(artifact.weight(weight.name)).tobytes())
    return digest.hexdigest()


def hashes(place, model, precision):
    """Target → hash of what its artifact decodes to."""
    checkpoint = tiny_model(place / "model", **MODELS[model])
    words = ("--to", ",".join(MODULES), "--precision", precision, "--quality", "data-free")
    ended = call("quantize", checkpoint, *words, "-o", place / "out", "-q")
    assert ended.code == 0, ended.err
    return {name: decoded(place / "out" / name, name) for name in MODULES}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="recorded on x86-64, where sums are alike"
)
@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_stored_is_what_was_stored_before(tmp_path, model, precision):
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert hashes(tmp_path, model, precision) == recorded[f"{model}, {precision}"]
