"""Load an MLX directory with `mlx_lm`, every tensor included; print what it holds.

    python load_mlx.py DIRECTORY

Not timed. MLX's CPU backend is slow on 4-bit products, so only one token is evaluated.
"""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    model, config = load_model(Path(path))
    logits = model(mx.array([[1]]))
    if not mx.isfinite(logits).all().item():
        sys.exit(f"MLX gives logits that are not finite for {path}")
    arrays = [array for _, array in tree_flatten(model.parameters())]
    facts = {
        "quantization": config.get("quantization"),
        "tensors": len(arrays),
        "tensor_bytes": sum(array.nbytes for array in arrays),
        "vocabulary": logits.shape[-1],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
