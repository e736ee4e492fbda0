"""Load a GGUF file in llama.cpp and evaluate four tokens; print what the runtime says it is.

    python load_gguf.py FILE

Not timed: it proves that an artifact of this tool, or of a peer, is one that the runtime takes.
"""

import json
import math
import sys

from llama_library import open_llama


def main(path: str) -> None:
    description, parameters, size, logits = open_llama().evaluate(path, [1, 2, 3, 4])
    if not all(map(math.isfinite, logits)):
        sys.exit(f"llama.cpp gives logits that are not finite for {path}")
    facts = {
        "description": description,
        "parameters": parameters,
        "tensor_bytes": size,
        "vocabulary": len(logits),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
