"""Generation speed of two artifacts of one runtime, in turn; print the ratio.

    python benchmarks/generation.py OURS THEIRS [--rounds 7] [--prompt 64] [--tokens 128]

Directories for onnxruntime-genai or for openvino_genai; both are loaded in this process. In every
round each generates from the same prompt, ours first in even rounds; what counts is the median,
of the rate of decoding and of the time to the first token apart.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

Generate = Callable[[np.ndarray, int], tuple[float, float]]
"""From a prompt and a number of tokens to seconds to the first token, and tokens a second after."""


def in_onnx(path: Path) -> Generate:
    import onnxruntime_genai as genai

    model = genai.Model(str(path))

    def generate(prompt: np.ndarray, tokens: int) -> tuple[float, float]:
        parameters = genai.GeneratorParams(model)
        length = len(prompt) + tokens
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = genai.Generator(model, parameters)
        began = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        first = time.perf_counter()
        made = 1
        while not generator.is_done():
            generator.generate_next_token()
            made += 1
        return first - began, (made - 1) / (time.perf_counter() - first)

    return generate


def in_openvino(path: Path) -> Generate:
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(str(path), "CPU")

    def generate(prompt: np.ndarray, tokens: int) -> tuple[float, float]:
        given = openvino_genai.TokenizedInputs(
            openvino.Tensor(prompt[None].astype(np.int64)),
            openvino.Tensor(np.ones((1, len(prompt)), np.int64)),
        )
        answer = pipeline.generate(given, max_new_tokens=tokens, do_sample=False, ignore_eos=True)
        figures = answer.perf_metrics
        return figures.get_ttft().mean / 1000, 1000 / figures.get_tpot().mean

    return generate


class Contestant:
    """A loaded artifact and what it showed: seconds to the first token, tokens a second."""

    def __init__(self, path: Path) -> None:
        load = in_openvino if (path / "openvino_model.xml").is_file() else in_onnx
        self._generate = load(path)
        self.first: list[float] = []
        self.rate: list[float] = []

    def run(self, prompt: np.ndarray, tokens: int, counts: bool = True) -> None:
        first, rate = self._generate(prompt, tokens)
        if counts:
            self.first.append(first)
            self.rate.append(rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    both = [Contestant(given.ours), Contestant(given.theirs)]
    prompt = np.arange(100, 100 + given.prompt, dtype=np.int32)
    for contestant in both:
        contestant.run(prompt, 8, counts=False)
    for number in range(given.rounds):
        for contestant in both if number % 2 == 0 else both[::-1]:
            contestant.run(prompt, given.tokens)
    ours, theirs = both
    print("| | ours | theirs | ratio |\n| --- | ---: | ---: | ---: |")
    for what, one, other in (
        ("tokens a second", ours.rate, theirs.rate),
        ("seconds to the first token", ours.first, theirs.first),
    ):
        mine, their = median(one), median(other)
        print(f"| {what} | {mine:.3f} | {their:.3f} | {mine / their:.3f} |")


if __name__ == "__main__":
    main()
