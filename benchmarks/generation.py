"""Generation speed of two artifacts of one runtime, in turn; print the ratio.

    python benchmarks/generation.py OURS THEIRS [--rounds 30] [--prompt 64] [--tokens 48]
        [--loads 6] [--results FILE.md]

Directories for onnxruntime-genai or for openvino_genai; both are loaded in this process. In every
round each generates from the same prompt, ours first in even rounds, and every round has another
prompt, because openvino_genai remembers prompts. Both are loaded anew several times, in turned
order: which pages the weights come to lie in, and who was loaded first, make hundredths. What
counts of a round is the median time of its tokens, which a neighbour on the machine hardly moves,
and the time to the first one; of all rounds, the median of the ratio, with its quartiles.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from tables import Table

TIMES = Table(("", "ours:", "theirs:", "ours is faster by:", "quartiles:"))

Generate = Callable[[np.ndarray, int], tuple[float, float]]
"""From a prompt and a number of tokens to seconds to the first token, and for each one after."""


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
        times = [time.perf_counter()]
        while not generator.is_done():
            generator.generate_next_token()
            times.append(time.perf_counter())
        return times[0] - began, median(np.diff(times))

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
        times = figures.raw_metrics.m_new_token_times  # milliseconds
        return figures.get_ttft().mean / 1000, median(np.diff(times)) / 1000

    return generate


class Contestant:
    """A loaded artifact and what it showed: seconds to the first token, and for each one after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generate: Generate | None = None
        self.first: list[float] = []
        self.next: list[float] = []

    def load(self) -> None:
        is_openvino = (self._path / "openvino_model.xml").is_file()
        self._generate = (in_openvino if is_openvino else in_onnx)(self._path)

    def unload(self) -> None:
        self._generate = None

    def run(self, prompt: np.ndarray, tokens: int, counts: bool = True) -> None:
        assert self._generate is not None
        first, following = self._generate(prompt, tokens)
        if counts:
            self.first.append(first)
            self.next.append(following)


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
    parser.add_argument("--loads", type=int, default=6)
    parser.add_argument("--results", type=Path, help="where to append the table, as Markdown")
    given = parser.parse_args()
    ours, theirs = Contestant(given.ours), Contestant(given.theirs)
    rng = np.random.default_rng(0)
    for load in range(given.loads):
        order = (ours, theirs) if load % 2 == 0 else (theirs, ours)
        with loaded(order):
            for number in range(-2, given.rounds // given.loads):
                prompt = rng.integers(100, 40_000, given.prompt, np.int32)
                for contestant in order if number % 2 == 0 else order[::-1]:
                    contestant.run(prompt, given.tokens, counts=number >= 0)
    text = table(ours, theirs) + (
        f"\n{given.ours.name} and {given.theirs.name}, {len(ours.next)} rounds in {given.loads} "
        f"loads, a prompt of {given.prompt} tokens and {given.tokens} more; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, this included.\n"
    )
    print(text)
    if given.results is not None:
        with given.results.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")


def table(ours: Contestant, theirs: Contestant) -> str:
    """Medians, and the quartiles of the ratio in a round; above 1 ours is the faster one."""
    rows = []
    for what, one, other in (
        ("next token, ms", ours.next, theirs.next),
        ("first token, ms", ours.first, theirs.first),
    ):
        low, middle, high = np.quantile(np.divide(other, one), (0.25, 0.5, 0.75))
        medians = (f"{median(times) * 1e3:.2f}" for times in (one, other))
        rows.append((what, *medians, f"{middle:.3f}", f"{low:.3f} to {high:.3f}"))
    return TIMES.text(rows) + "\n"


if __name__ == "__main__":
    main()
