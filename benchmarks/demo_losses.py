"""Measure what every type that a recommendation weighs loses on the demo model; write the table.

    python benchmarks/demo_losses.py CHECKPOINT [--work DIRECTORY] [--only TARGET:TYPE...]

CHECKPOINT is the demo model's (`phiquant demo` leaves it in its output). Its matrices are rounded
to BF16 first, as Phis are published: scales that take the checkpoint's type (MLX's) then take as
many bits as in an artifact of a Phi. Each type that an engine of the devices' table names is made
of it, and verified as `phiquant verify` does by default: in the artifact's runtime on the CPU, over
the text that ships with the tool. Types whose layers come out alike on two engines have one row.

Where figures come from the reference forward over the decoded weights, as MLX's do, what the
runtime's own arithmetic adds is not in them. It is measured over 64 tokens and noted in the table;
in MLX's BF16 it is more, on this model, than `verify` lets pass.

Every verification is kept under `--work`, and not made again. With all of them there, the table
`src/phiquant/recommendation/demo_losses.toml` is written; `--table` names another place.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints import round_to_bfloat16, shard_header, write_json

from phiquant.devices.engines import engines
from phiquant.evaluation.manifest import NAME as MANIFEST
from phiquant.evaluation.run import DECODED
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.job.making import quantize
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.outline import Outline, outline
from phiquant.phi.source import Source
from phiquant.recipe import Recipe
from phiquant.recommendation.losses import TABLE, planned_layer_bits
from phiquant.targets.table import target

CONTEXT = 4096
ALLOWED = {"divergence"}
"""The check that may fail: how much a type loses is what is asked here."""
HEAD = """\
# What each type lost on the demo model's variant "tied", SmolLM2-135M-Instruct as a Phi-3 network
# with re-scaled channels, its matrices in BF16, by the quality "data-free". The model is smaller
# and harder to quantize than a Phi: the figures order the types, and do not promise a Phi's loss.
#
# A row: the type, stored bits a weight of the layers' matrices, the mean KL divergence to the
# original in nats a token, and its standard error. Blocks of 256 weights and groups of 128 do not
# fit the demo's 576 columns: llama.cpp's mixtures and g128 have other grids there, hence more bits.
#
# Written by benchmarks/demo_losses.py; every figure is measured, as `phiquant verify` does by
# default, on a CPU whatever hardware an artifact is for."""


@dataclass(frozen=True, slots=True)
class TypeLoss:
    """One type, as it came out on the demo model."""

    target: str
    type: str
    providers: tuple[str, ...]
    """For which such layers are made."""
    bits: float
    nats: float
    error: float
    measured_in: str
    arithmetic: float
    """By how much the runtime differs from the reference over the same weights, in nats a token."""
    text: str
    """What was measured over."""


@dataclass(frozen=True, slots=True)
class Form:
    """A type to be measured, made by `recipe`."""

    recipe: Recipe
    type: str
    bits: float
    providers: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.recipe.target}-{self.type}-{self.bits:.2f}"


def forms(of: Outline) -> tuple[Form, ...]:
    """Every type that an engine names, those with like layers together."""
    by_key: dict[tuple[str, str, float], Form] = {}
    for engine in engines().values():
        for types in engine.types.values():
            for type in types:
                recipe = Recipe(
                    engine.target,
                    type=type,
                    context=CONTEXT,
                    options=engine.options,
                    quality="data-free",
                )
                plan = target(engine.target).plan(of.architecture, of.survey, recipe.form)
                bits = planned_layer_bits(plan)
                key = (engine.target, plan.type, round(bits, 2))
                providers = by_key[key].providers if key in by_key else ()
                if engine.provider not in providers:
                    providers = (*providers, engine.provider)
                first = by_key[key].recipe if key in by_key else recipe
                by_key[key] = Form(first, plan.type, bits, providers)
    return tuple(by_key.values())


def in_bfloat16(checkpoint: Checkpoint, directory: Path) -> None:
    """The same checkpoint with every tensor rounded to BF16, written into a new `directory`."""
    directory.mkdir(parents=True)
    for path in checkpoint.directory.iterdir():
        if path.suffix == ".json" and path.name != "model.safetensors.index.json":
            shutil.copy(path, directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    write_json(directory / "config.json", config | {"torch_dtype": "bfloat16"})
    weights = sorted(checkpoint.architecture.weights(), key=lambda weight: weight.name)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(shard_header(weights))
        for weight in weights:
            file.write(round_to_bfloat16(checkpoint.weight(weight.name)).tobytes())


@cache
def reference(checkpoint: Path) -> ReferenceFigures:
    """What the original says about the text; seconds, once."""
    return ReferenceFigures.measure(checkpoint)


def measure(form: Form, truth: ReferenceFigures, work: Path) -> dict[str, Any]:
    """The verification of the type's artifact; the artifact is removed."""
    path = work / form.name
    shutil.rmtree(path, ignore_errors=True)
    quantize(truth.checkpoint.directory, [form.recipe], path)
    let_load_on_cpu(path)
    verified = verify(path, truth)
    allowed = ALLOWED | ({"runtime"} if verified.measured_in == DECODED else set())
    faults = [check for check in verified.checks if check.failed and check.name not in allowed]
    if faults or verified.figures is None:
        sys.exit(f"{form.name}: {'; '.join(verified.reasons)}")
    shutil.rmtree(path)
    return verified.as_json()


def let_load_on_cpu(path: Path) -> None:
    """Take an ONNX artifact's provider (CUDA, DirectML) out of its configuration, so that it loads
    where there is none; weights and graph stay. With the file changed its record says nothing.
    """
    file = path / "genai_config.json"
    if not file.exists():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    options = config["model"]["decoder"]["session_options"]
    if options.pop("provider_options", []):
        write_json(file, config)
        (path / MANIFEST).unlink()


def row(form: Form, verified: dict[str, Any]) -> TypeLoss:
    """The table's row, out of a verification's record."""
    mean, text = verified["figures"]["mean"], verified["text"]
    return TypeLoss(
        target=form.recipe.target,
        type=form.type,
        providers=form.providers,
        bits=form.bits,
        nats=mean["value"],
        error=mean["error"],
        measured_in=verified["measured_in"],
        arithmetic=verified["parity"]["mean_kl"],
        text=f"{text['text']}, {text['windows']} windows of {text['window']} tokens",
    )


def table(rows: Sequence[TypeLoss]) -> str:
    """The TOML file."""
    return "\n".join([HEAD, *_body(rows)]) + "\n"


def _body(rows: Sequence[TypeLoss]) -> Iterator[str]:
    (text,) = {one.text for one in rows}
    yield f"# Text: {text}."
    for name in dict.fromkeys(one.target for one in rows):
        own = sorted((one for one in rows if one.target == name), key=lambda one: one.bits)
        yield ""
        yield f"# Measured in {', '.join(dict.fromkeys(one.measured_in for one in own))}."
        if any(one.measured_in == DECODED for one in own):
            most = max(own, key=lambda one: one.arithmetic)
            yield f"# The runtime's arithmetic adds up to {most.arithmetic:.2g} nats ({most.type})."
        yield f"{name} = ["
        twice = _repeated(one.type for one in own)
        for one in own:
            note = f"  # {', '.join(one.providers)}" if one.type in twice else ""
            yield f'  ["{one.type}", {one.bits:.2f}, {one.nats:.3g}, {one.error:.2g}],{note}'
        yield "]"


def _repeated(names: Iterable[str]) -> set[str]:
    every = list(names)
    return {name for name in every if every.count(name) > 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, default=Path(".cache/demo-losses"))
    parser.add_argument("--only", nargs="+", metavar="TARGET:TYPE", default=[])
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args()
    rounded = given.work / "checkpoint"
    if not rounded.exists():
        shutil.rmtree(making := given.work / "checkpoint.making", ignore_errors=True)
        in_bfloat16(Checkpoint.open(given.checkpoint), making)
        making.rename(rounded)
    config = json.loads((rounded / "config.json").read_text(encoding="utf-8"))
    listed = forms(outline(Source(rounded, "demo"), config))
    for one in listed:
        if given.only and f"{one.recipe.target}:{one.type}" not in given.only:
            continue
        keep_verification(one, given.work)
    kept = [(one, record(one, given.work)) for one in listed]
    missing = [one.name for one, path in kept if not path.exists()]
    if missing:
        sys.exit(f"not measured yet, no table is written: {', '.join(missing)}")
    rows = [row(one, json.loads(path.read_text(encoding="utf-8"))) for one, path in kept]
    given.table.write_text(table(rows), encoding="utf-8")
    print(f"wrote {given.table}: {len(rows)} types")


def record(form: Form, work: Path) -> Path:
    """Where the type's verification is kept."""
    return work / f"{form.name}.json"


def keep_verification(form: Form, work: Path) -> None:
    """Measure the type, unless that was done."""
    if record(form, work).exists():
        return
    measured = measure(form, reference(work / "checkpoint"), work)
    write_json(record(form, work), measured)
    mean = measured["figures"]["mean"]
    print(f"{form.name}: {mean['value']:.3g} ± {mean['error']:.1g} nats", flush=True)


if __name__ == "__main__":
    main()
