"""Make the IRs of optimum-cli's kind that `test_openvino_optimum.py` reads.

    python tests/targets/golden/make_optimum_goldens.py

Run with optimum-intel 2.2.0, nncf 3.4.0, openvino 2026.4.1 and transformers 5.5.4 (see
benchmarks/peers/requirements-openvino.txt), from the repository's root.
"""

import gzip
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), "src"]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 256,
}
KINDS = {
    "fp32": (False, None),
    "int4-sym": (False, {"bits": 4, "sym": True, "group_size": 32}),
    "int4-asym": (True, {"bits": 4, "sym": False, "group_size": 32, "all_layers": True}),
}
"""Name → whether the head is tied, and how weights are compressed."""


def main() -> None:
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    from tiny_models import write_tiny_checkpoint

    for name, (tied, compression) in KINDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            source = write_tiny_checkpoint(f"{scratch}/source", tie_word_embeddings=tied, **SHAPE)
            asked = {"load_in_8bit": False}
            if compression:
                asked = {"quantization_config": OVWeightQuantizationConfig(**compression)}
            model = OVModelForCausalLM.from_pretrained(
                str(source), export=True, compile=False, **asked
            )
            made = Path(scratch, "made")
            model.save_pretrained(made)
            into = HERE / f"optimum-{name}"
            into.mkdir(exist_ok=True)
            (into / "config.json").write_bytes((made / "config.json").read_bytes())
            for file in ("openvino_model.xml", "openvino_model.bin"):
                packed = gzip.compress((made / file).read_bytes(), 9, mtime=0)
                (into / f"{file}.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
