"""Generation speed of two artifacts of one runtime, in turn; print the ratio.

    python benchmarks/generation.py OURS THEIRS [--rounds 30] [--prompt 64] [--tokens 48]
        [--results FILE.md]

Directories for onnxruntime-genai or for openvino_genai; both are loaded in this process. In every
round each generates from the same prompt, ours first in even rounds, and every round has another
prompt, because openvino_genai remembers prompts. After half of the rounds both are loaded anew in
the other order: the one that was loaded first is slower by a hundredth or two. What counts are
medians: of the rate of decoding and of the time to the first token, and of the ratio of the two in
a round, with its quartiles.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self._path = path
        self._generate: Generate | None = None
        self.first: list[float] = []
        self.rate: list[float] = []

    def load(self) -> None:
        is_openvino = (self._path / "openvino_model.xml").is_file()
        self._generate = (in_openvino if is_openvino else in_onnx)(self._path)

    def unload(self) -> None:
        self._generate = None

    def run(self, prompt: np.ndarray, tokens: int, counts: bool = True) -> None:
        assert self._generate is not None
        first, rate = self._generate(prompt, tokens)
        if counts:
            self.first.append(first)
            self.rate.append(rate)


@contextmanager
def loaded(contestants: Sequence[Contestant]) -> Iterator[None]:
    for contestant in contestants:
        contestant.load()
    try:
        yield
    finally:
        for contestant in contestants:
            contestant.unload()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--results", type=Path, help="where to append the table, as Markdown")
    given = parser.parse_args()
    ours, theirs = Contestant(given.ours), Contestant(given.theirs)
    rng = np.random.default_rng(0)
    for order in ((ours, theirs), (theirs, ours)):
        with loaded(order):
            for number in range(-2, given.rounds // 2):
                prompt = rng.integers(100, 40_000, given.prompt, np.int32)
                for contestant in order if number % 2 == 0 else order[::-1]:
                    contestant.run(prompt, given.tokens, counts=number >= 0)
    text = table(ours, theirs) + (
        f"\n{given.ours.name} and {given.theirs.name}, {given.rounds} rounds, a prompt of "
        f"{given.prompt} tokens and {given.tokens} more; load {os.getloadavg()[0]:.1f} of other "
        f"work on {os.cpu_count()} cores.\n"
    )
    print(text)
    if given.results is not None:
        with given.results.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")


def table(ours: Contestant, theirs: Contestant) -> str:
    """Medians, and the quartiles of the ratio in a round; above 1 ours is the faster one."""
    lines = ["| | ours | theirs | ours is faster by | quartiles |", "| --- |" + " ---: |" * 4]
    for what, one, other in (
        ("tokens a second", ours.rate, theirs.rate),
        ("prompts a second", [1 / t for t in ours.first], [1 / t for t in theirs.first]),
    ):
        low, middle, high = np.quantile(np.divide(one, other), (0.25, 0.5, 0.75))
        lines.append(
            f"| {what} | {median(one):.2f} | {median(other):.2f} | {middle:.3f} | "
            f"{low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
