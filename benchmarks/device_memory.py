"""Predicted against measured peak memory of the runtimes; print the table, and write it.

    python benchmarks/device_memory.py DEMO_CHECKPOINT [--work DIRECTORY] [--results DIRECTORY]

DEMO_CHECKPOINT is the demo model's (`phiquant demo` leaves it in its output). Each precision of it
is made for llama.cpp, onnxruntime-genai and OpenVINO; each artifact then runs in a process of its
own, which reads a prompt and generates eight tokens, at two lengths of context. The constants of
the predictions (what a runtime takes by itself, for a layer, for an entry of the vocabulary) were
fitted with the demo model and a second one (random weights, wider and shallower, untied) in view.
A third (random weights, as many key-value heads as heads, a smaller vocabulary) is held out:
nothing was fitted to it, and its rows say how far to trust predictions for other dimensions.

What is measured is VmHWM, the kernel's own mark of the most resident pages: anonymous memory and
mapped pages of weights and libraries alike, for a device has to hold the weights whichever way they
are read. It includes the Python that drives the runtime. Linux only.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_json
from machine import describe_machine
from random_models import MANY_HEADS, UNTIED, random_model
from tables import VERDICTS, Row, Table, line, page

RUNTIMES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "gguf": ("gguf", {}),
    "onnx": ("onnx", {}),
    "onnx --qdq": ("onnx", {"qdq": "true"}),
    "openvino": ("openvino", {}),
}
"""Target and options of what the table calls a runtime."""
GROWING = ("onnx --qdq", "openvino")
"""Whose cache grows with the sequence; the others allocate the context."""
LENGTHS = ((512, 128), (2048, 1024))
"""Tokens of context, and of the prompt in it."""
TOKENS = 8
BAR = 0.15
DEMO, SECOND = "SmolLM2-135M as Phi-3", "random, 400 M, untied"
HELD_OUT = "held out: random, 290 M, 16 key-value heads"
ALL = ("int4", "int8", "fp16", "fp32")


RUNS = Table(
    (
        "model", "runtime", "type", "context:", "prompt:", "predicted:", "measured:", "ratio:", "",
    )
)  # fmt: skip
SUMMARY = Table(("model", "rows:", "ratios:", "beyond 15%"))


def memory_row(record: Mapping[str, Any]) -> Row:
    """One run: `model`, `target`, `type`, tokens of `context` and `prompt`, and bytes, `predicted`
    and `measured`.
    """
    ratio = record["predicted"] / record["measured"]
    met = abs(ratio - 1) <= BAR
    names = ("model", "target", "type", "context", "prompt")
    sizes = (f"{record[name] / 1e6:.0f} MB" for name in ("predicted", "measured"))
    cells = (*(str(record[name]) for name in names), *sizes, f"{ratio:.3f}", VERDICTS[met])
    return Row(cells, {**record, "ratio": ratio}, met)


def rows(name: str, model: Path, precisions: tuple[str, ...], work: Path) -> Iterator[Row]:
    """Every run of the `model` that the table calls `name`."""
    from phiquant.job.making import quantize
    from phiquant.phi.outline import read_outline
    from phiquant.phi.source import locate
    from phiquant.planning.footprint import Use
    from phiquant.recipe import Recipe
    from phiquant.targets.table import target

    architecture = read_outline(locate(str(model))).architecture
    for precision in precisions:
        for runtime, (name_of_target, options) in RUNTIMES.items():
            output = work / f"{model.name}-{precision}-{runtime.replace(' ', '')}"
            recipe = Recipe(name_of_target, precision, options=options)  # type: ignore[arg-type]
            if not output.exists():
                quantize(model, [recipe], output)
            form = recipe.form
            survey = read_outline(locate(str(model))).survey
            plan = target(name_of_target).plan(architecture, survey, form)
            for context, prompt in LENGTHS:
                use = Use(prompt + TOKENS if runtime in GROWING else context, prompt)
                predicted = target(name_of_target).footprint(plan, form, architecture, use).total
                yield memory_row(
                    {
                        "model": name,
                        "target": runtime,
                        "type": plan.type,
                        "context": context,
                        "prompt": prompt,
                        "predicted": predicted,
                        "measured": run(name_of_target, output, context, prompt),
                    }
                )


def run(target: str, path: Path, context: int, prompt: int) -> int:
    """VmHWM in bytes of a process that runs the artifact; it imports nothing of phiquant."""
    from phiquant.targets.openvino.running import properties

    words = [sys.executable, __file__, "--run", target, str(path), str(context), str(prompt)]
    words.append(json.dumps(dict(properties(path)) if target == "openvino" else {}))
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


def peak() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def in_gguf(path: Path, context: int, prompt: np.ndarray, _: Mapping[str, str]) -> None:
    """llama.cpp's defaults through its C functions."""
    from peers.llama_library import open_llama

    llama = open_llama()
    (file,) = path.glob("*.gguf")
    _, state = llama.load(str(file), context)
    llama.decode(state, prompt.tolist())
    for _ in range(TOKENS):
        llama.decode(state, [100])


def in_onnx(path: Path, context: int, prompt: np.ndarray, _: Mapping[str, str]) -> None:
    """onnxruntime-genai as its examples have it."""
    import onnxruntime_genai as genai

    model = genai.Model(str(path))
    genai.Tokenizer(model)
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=context, min_length=context, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    for _ in range(TOKENS):
        generator.generate_next_token()


def in_openvino(path: Path, _: int, prompt: np.ndarray, given: Mapping[str, str]) -> None:
    """openvino_genai with the properties that the artifact is to be run with."""
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(str(path), "CPU", **given)
    tokens = openvino_genai.TokenizedInputs(
        openvino.Tensor(prompt[None].astype(np.int64)),
        openvino.Tensor(np.ones((1, len(prompt)), np.int64)),
    )
    pipeline.generate(tokens, max_new_tokens=TOKENS, do_sample=False, ignore_eos=True)


def summary(rows: Sequence[Row]) -> str:
    """For each model, how far the predictions are off."""
    return SUMMARY.text(
        summary_cells(name, [row for row in rows if row.record["model"] == name])
        for name in dict.fromkeys(row.record["model"] for row in rows)
    )


def summary_cells(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    ratios = sorted(row.record["ratio"] for row in rows)
    beyond = [f"{row.record['target']} {row.record['type']}" for row in rows if not row.passed]
    named = ", ".join(dict.fromkeys(beyond)) or "none"
    return name, str(len(rows)), f"{ratios[0]:.3f} to {ratios[-1]:.3f}", named


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, default=Path(".cache/device-memory"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--run", nargs=5, metavar="WORD")
    given = parser.parse_args()
    if given.run:
        name, path, context, prompt, told = given.run
        tokens = np.arange(100, 100 + int(prompt), dtype=np.int32)
        {"gguf": in_gguf, "onnx": in_onnx, "openvino": in_openvino}[name](
            Path(path), int(context), tokens, json.loads(told)
        )
        print(peak(), flush=True)
        return
    if given.demo is None:
        parser.error("which checkpoint is the demo model's?")
    given.work.mkdir(parents=True, exist_ok=True)
    second = random_model(UNTIED, given.demo, given.work / "random-400m")
    third = random_model(MANY_HEADS, given.demo, given.work / "random-290m")
    asked = {
        DEMO: (given.demo, ALL),
        SECOND: (second, ("int4", "int8")),
        HELD_OUT: (third, ALL),
    }
    measured = []
    for name, (model, precisions) in asked.items():
        for row in rows(name, model, precisions, given.work):
            measured.append(row)
            print(line(row.cells), flush=True)
    if given.results:
        write_results(given.results, measured)


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document as JSON keeps it."""
    machine = document["machine"]
    rows = [memory_row(record) for record in document["rows"]]
    return page(
        [
            "# Peak memory, predicted and measured",
            f"Made by `benchmarks/device_memory.py` on {machine['processor']}, {machine['cores']} "
            "cores. Resident pages at their highest (VmHWM), Python included; the bar is 15%.\n"
            "The constants of the predictions were fitted with the first two models in view, and "
            "to nothing of the third, which is held out.",
            summary(rows),
            RUNS.text(row.cells for row in rows),
        ]
    )


def write_results(directory: Path, rows: Sequence[Row]) -> None:
    document = {"machine": describe_machine(), "rows": [row.record for row in rows]}
    (directory / "device_memory.md").write_text(markdown(document), encoding="utf-8")
    write_json(directory / "device_memory.json", document)


if __name__ == "__main__":
    main()
