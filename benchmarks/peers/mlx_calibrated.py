"""mlx_lm's two methods that need a text: GPTQ, and 4 or 5 bits by sensitivity.

    python mlx_calibrated.py {gptq,dynamic} MODEL TOKENS.npy OUTPUT

Run by the peers' Python. `mlx_lm.gptq` and `mlx_lm.dynamic_quant` run unmodified with their own
defaults, but for the text: they would download one, and get the sequences in TOKENS (int32,
(sequences, length)) instead.
"""

import os
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm.quant.dynamic_quant
import mlx_lm.quant.gptq
import numpy as np

METHODS = {"gptq": mlx_lm.quant.gptq, "dynamic": mlx_lm.quant.dynamic_quant}


def main(method: str, model: Path, tokens: Path, output: Path) -> None:
    sequences = mx.array(np.load(tokens))
    module = METHODS[method]
    module.load_data = lambda tokenizer, num_samples, sequence_length: sequences
    sys.argv = [method, "--model", str(model.resolve()), "--mlx-path", str(output.resolve())]
    if method == "dynamic":
        os.chdir(output.resolve().parent)  # it leaves its sensitivities where it is run
    module.main()


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
