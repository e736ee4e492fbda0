"""Load an OpenVINO directory with `openvino_genai`, and print how fast it answers.

    python load_openvino.py DIRECTORY

Not timed by `speed.py`. The times are medians of three answers to 64 random tokens.
"""

import json
import sys
from statistics import median


def main(path: str) -> None:
    import numpy as np
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(path, "CPU")
    random = np.random.default_rng(0)
    first, following = [], []
    for _ in range(3):
        tokens = openvino.Tensor(random.integers(10, 1000, (1, 64)))
        mask = openvino.Tensor(np.ones((1, 64), np.int64))
        given = openvino_genai.TokenizedInputs(tokens, mask)
        answer = pipeline.generate(given, max_new_tokens=8, do_sample=False, ignore_eos=True)
        first.append(answer.perf_metrics.get_ttft().mean)
        following.append(answer.perf_metrics.get_tpot().mean)
    facts = {
        "runtime": openvino_genai.__version__,
        "first_token_ms": round(median(first), 1),
        "next_token_ms": round(median(following), 1),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
