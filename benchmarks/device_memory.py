"""Predicted against measured peak memory of the runtimes; print the table, and write it.

    python benchmarks/device_memory.py DEMO_CHECKPOINT [--work DIRECTORY] [--results DIRECTORY]

DEMO_CHECKPOINT is the demo model's (`phiquant demo` leaves it in its output). Each precision of it
is made for llama.cpp, onnxruntime-genai and OpenVINO; each artifact then runs in a process of its
own, which reads a prompt and generates eight tokens, at two lengths of context. A second model
(random weights, wider and shallower, untied, another vocabulary) shows that the terms follow from
the dimensions and were not fitted to the first.

What is measured is VmHWM, the kernel's own mark of the most resident pages: anonymous memory and
mapped pages of weights and libraries alike, for a device has to hold the weights whichever way they
are read. It includes the Python that drives the runtime. Linux only.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from checkpoints import SEED, random_pool, write_json, write_shard
from machine import describe_machine

TARGETS = ("gguf", "onnx", "openvino")
LENGTHS = ((512, 128), (2048, 1024))
"""Tokens of context, and of the prompt in it."""
TOKENS = 8
BAR = 0.15


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    target: str
    type: str
    context: int
    prompt: int
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def second_model(demo: Path, directory: Path) -> Path:
    """400 M random weights with the demo's tokenizer, written once."""
    from phiquant.phi.architecture import Architecture, Rope

    if directory.exists():
        return directory
    architecture = Architecture(
        hidden_size=1536,
        layers=8,
        heads=12,
        kv_heads=4,
        head_size=128,
        intermediate_size=4096,
        vocabulary_size=65536,
        norm_epsilon=1e-5,
        tied_head=False,
        max_positions=8192,
        sliding_window=None,
        rope=Rope(theta=10000.0, dimensions=128),
    )
    directory.mkdir(parents=True)
    for path in demo.glob("*token*"):
        shutil.copy(path, directory)
    shutil.copy(demo / "generation_config.json", directory)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "intermediate_size": architecture.intermediate_size,
        "vocab_size": architecture.vocabulary_size,
        "tie_word_embeddings": False,
        "max_position_embeddings": architecture.max_positions,
        "original_max_position_embeddings": architecture.max_positions,
        "rope_theta": architecture.rope.theta,
        "torch_dtype": "bfloat16",
    }
    write_json(directory / "config.json", config)
    generator = np.random.default_rng(SEED)
    weights = sorted(architecture.weights(), key=lambda weight: weight.name)
    write_shard(directory / "model.safetensors", weights, random_pool(generator), generator)
    return directory


def rows(model: Path, work: Path, precisions: tuple[str, ...]) -> Iterator[Row]:
    from phiquant.phi.outline import read_outline
    from phiquant.phi.source import locate
    from phiquant.pipeline import quantize
    from phiquant.planning.footprint import Use
    from phiquant.recipe import Recipe
    from phiquant.targets.table import target

    architecture = read_outline(locate(str(model))).architecture
    for precision in precisions:
        output = work / f"{model.name}-{precision}"
        if not output.exists():
            quantize(model, [Recipe(name, precision) for name in TARGETS], output)  # type: ignore[arg-type]
        for name in TARGETS:
            plan = target(name).plan(
                architecture,
                read_outline(locate(str(model))).survey,
                Recipe(name, precision),  # type: ignore[arg-type]
            )
            for context, prompt in LENGTHS:
                # OpenVINO's cache grows with the sequence; the others allocate the context.
                use = Use(prompt + TOKENS if name == "openvino" else context, prompt)
                predicted = target(name).footprint(plan, architecture, use).total
                measured = run(name, output / name, context, prompt)
                yield Row(model.name, name, plan.type, context, prompt, predicted, measured)


def run(target: str, path: Path, context: int, prompt: int) -> int:
    """VmHWM in bytes of a process that runs the artifact."""
    words = [sys.executable, __file__, "--run", target, str(path), str(context), str(prompt)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


def peak() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def in_gguf(path: Path, context: int, prompt: np.ndarray) -> None:
    """llama.cpp's defaults through its C functions."""
    import llama_cpp as c

    c.llama_backend_init()
    (file,) = path.glob("*.gguf")
    model = c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
    settings = c.llama_context_default_params()
    settings.n_ctx = context
    state = c.llama_init_from_model(model, settings)
    tokens = (c.llama_token * len(prompt))(*prompt.tolist())
    assert c.llama_decode(state, c.llama_batch_get_one(tokens, len(prompt))) == 0
    for _ in range(TOKENS):
        one = (c.llama_token * 1)(100)
        assert c.llama_decode(state, c.llama_batch_get_one(one, 1)) == 0


def in_onnx(path: Path, context: int, prompt: np.ndarray) -> None:
    import onnxruntime_genai as genai

    model = genai.Model(str(path))
    genai.Tokenizer(model)
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=context, min_length=context, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    for _ in range(TOKENS):
        generator.generate_next_token()


def in_openvino(path: Path, _: int, prompt: np.ndarray) -> None:
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(str(path), "CPU")
    given = openvino_genai.TokenizedInputs(
        openvino.Tensor(prompt[None].astype(np.int64)),
        openvino.Tensor(np.ones((1, len(prompt)), np.int64)),
    )
    pipeline.generate(given, max_new_tokens=TOKENS, do_sample=False, ignore_eos=True)


def table(found: list[Row]) -> Iterator[str]:
    yield "| model | runtime | type | context | prompt | predicted | measured | ratio | |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for row in found:
        verdict = "pass" if abs(row.ratio - 1) <= BAR else "FAIL"
        yield (
            f"| {row.model} | {row.target} | {row.type} | {row.context} | {row.prompt} | "
            f"{row.predicted / 1e6:.0f} MB | {row.measured / 1e6:.0f} MB | {row.ratio:.3f} | "
            f"{verdict} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, default=Path(".cache/device-memory"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--run", nargs=4, metavar=("TARGET", "PATH", "CONTEXT", "PROMPT"))
    given = parser.parse_args()
    if given.run:
        name, path, context, prompt = given.run
        tokens = np.arange(100, 100 + int(prompt), dtype=np.int32)
        {"gguf": in_gguf, "onnx": in_onnx, "openvino": in_openvino}[name](
            Path(path), int(context), tokens
        )
        print(peak(), flush=True)
        return
    if given.demo is None:
        parser.error("which checkpoint is the demo model's?")
    given.work.mkdir(parents=True, exist_ok=True)
    found = []
    second = second_model(given.demo, given.work / "random-400m")
    for model, precisions in (
        (given.demo, ("int4", "int8", "fp16", "fp32")),
        (second, ("int4", "int8")),
    ):
        for row in rows(model, given.work, precisions):
            name = "SmolLM2-135M as Phi-3" if model is given.demo else "random, 400 M, untied"
            found.append(replace(row, model=name))
            print(list(table(found[-1:]))[-1], flush=True)
    if given.results:
        write_results(given.results, found)


def write_results(directory: Path, found: list[Row]) -> None:
    machine = describe_machine()
    lines = [
        "# Peak memory, predicted and measured",
        "",
        f"Made by `benchmarks/device_memory.py` on {machine['processor']}, {machine['cores']} "
        "cores. Resident pages at their highest (VmHWM), Python included; the bar is 15%.",
        "",
        *table(found),
    ]
    (directory / "device_memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document = {"machine": machine, "rows": [asdict(row) | {"ratio": row.ratio} for row in found]}
    write_json(directory / "device_memory.json", document)


if __name__ == "__main__":
    main()
