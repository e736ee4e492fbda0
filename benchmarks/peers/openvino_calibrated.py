"""optimum-intel's 4 bits with everything switched on: AWQ, scale estimation and GPTQ.

    python openvino_calibrated.py MODEL TOKENS.npy INTERMEDIATE OUTPUT

Run by the Python of optimum-intel's environment. What `optimum-cli export openvino
--weight-format int4 --sym --group-size 64 --awq --scale-estimation --gptq --dataset ...` does,
with the sequences in TOKENS (int32, (sequences, length)) in place of a data set that it would
download: the export is its own, unmodified, and so are the parameters that it hands to NNCF.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

GROUP = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("intermediate", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    tool = Path(sys.executable).parent / "optimum-cli"
    command = [tool, "export", "openvino", "-m", options.model, "--weight-format", "fp32"]
    command += ["--task", "text-generation-with-past", options.intermediate]
    subprocess.run(command, check=True, stdout=sys.stderr)
    compress(options)


def compress(options: argparse.Namespace) -> None:
    import nncf
    import openvino
    from optimum.intel import OVWeightQuantizationConfig

    config = OVWeightQuantizationConfig(
        bits=4, sym=True, group_size=GROUP, quant_method="awq", scale_estimation=True, gptq=True
    )
    parameters = config.to_nncf_dict()
    parameters.pop("weight_only", None)
    sequences = np.load(options.tokens).astype(np.int64)
    parameters["subset_size"] = len(sequences)
    model = openvino.Core().read_model(options.intermediate / "openvino_model.xml")
    names = {name for given in model.inputs for name in given.names}
    dataset = nncf.Dataset(list(sequences), lambda tokens: inputs(tokens, names))
    compressed = nncf.compress_weights(model, dataset=dataset, **parameters)
    shutil.copytree(options.intermediate, options.output, ignore=lambda _, files: weights_of(files))
    openvino.save_model(compressed, options.output / "openvino_model.xml", compress_to_fp16=False)


def inputs(tokens: np.ndarray, names: set[str]) -> dict[str, np.ndarray]:
    """One sequence as the exported model takes it, from an empty cache."""
    given = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "position_ids": np.arange(len(tokens))[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    return {name: value for name, value in given.items() if name in names}


def weights_of(files: list[str]) -> set[str]:
    return {name for name in files if name.startswith("openvino_model.")}


if __name__ == "__main__":
    main()
