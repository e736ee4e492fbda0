"""Load an ONNX directory with onnxruntime-genai and generate a few tokens; print what it holds.

    python load_genai.py DIRECTORY

Not timed.
"""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    import onnxruntime_genai as genai

    model = genai.Model(path)
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=8, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens([1, 2, 3])
    while not generator.is_done():
        generator.generate_next_token()
    facts = {
        "tokens": [int(token) for token in generator.get_sequence(0)],
        "bytes": sum(file.stat().st_size for file in Path(path).iterdir()),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
