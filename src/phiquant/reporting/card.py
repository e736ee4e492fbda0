"""The model card, `README.md`: what an artifact is, how to run it, what it lost, how it was made.

Written from the record and, once there is one, the verification; nothing in it is guessed. The
front matter is what the Hugging Face hub reads: https://huggingface.co/docs/hub/model-cards.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import InputError
from phiquant.evaluation.check import Outcome
from phiquant.evaluation.manifest import Manifest
from phiquant.evaluation.verification import Verification
from phiquant.reporting.units import size
from phiquant.reporting.verdict import figure_rows, measured
from phiquant.targets.table import target
from phiquant.targets.target import Target

HALF = 16
"""Bits a weight from which on an artifact is a conversion and no quantization. (The hub knows no
such relation to a base model; "quantized" is what it calls conversions too.)"""

BUDGETS = {
    "bits_per_weight": "--bits-per-weight",
    "max_bytes": "--max-size",
    "max_kl": "--max-kl",
}
"""The record's names, as the command line has them."""


def card(directory: Path, manifest: Manifest, verification: Verification | None = None) -> str:
    """The card of the artifact in `directory`, in Markdown."""
    runtime = target(str(manifest.plan["target"]))
    sections = [
        _front_matter(manifest, runtime),
        _introduction(manifest, runtime),
        _running(directory, runtime),
        _sizes(manifest),
        _figures(verification),
        _notes(manifest, verification),
        _making(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(manifest: Manifest, runtime: Target[Any]) -> str:
    source = manifest.source
    lines = ["---"]
    if source.get("hub_id"):
        lines += [f"base_model: {_yaml(source['hub_id'])}", "base_model_relation: quantized"]
    if source.get("license"):
        lines.append(f"license: {_yaml(source['license'])}")
    lines += [
        f"library_name: {runtime.library}",
        "pipeline_tag: text-generation",
        "tags:",
        "- phi",
        f"- {runtime.library}",
        *(["- quantized"] if manifest.plan["bits_per_weight"] < HALF else []),
        "- phiquant",
        "---",
    ]
    return "\n".join(lines)


def _yaml(value: object) -> str:
    """A double-quoted scalar; JSON's are YAML's."""
    return json.dumps(str(value), ensure_ascii=False)


def _introduction(manifest: Manifest, runtime: Target[Any]) -> str:
    plan, name = manifest.plan, manifest.source.get("name")
    return (
        f"# {name} {plan['type']} for {runtime.title}\n\n"
        f"{_source(manifest)}, in the format {plan['type']} of {runtime.title}: "
        f"{size(plan['nbytes'])} of tensors, {plan['bits_per_weight']:.2f} bits per weight."
    )


def _source(manifest: Manifest) -> str:
    source = manifest.source
    if not source.get("hub_id"):
        return f"The model {source.get('name')}"
    link = f"[{source['hub_id']}](https://huggingface.co/{source['hub_id']})"
    return f"{link} at revision {source['revision']}" if source.get("revision") else link


def _running(directory: Path, runtime: Target[Any]) -> str:
    try:
        command = runtime.command(directory)
    except InputError:  # damaged since it was made; the verification says how
        return ""
    return (
        "## Running it\n\n"
        f"In this directory, with an unmodified {runtime.title}:\n\n"
        f"```sh\n{command}\n```"
    )


def _sizes(manifest: Manifest) -> str:
    totals: dict[tuple[str, str], list[int]] = {}
    stored = Counter(row["source"] for row in manifest.plan["rows"] if row["source"])
    for row in manifest.plan["rows"]:
        role = str(row.get("role") or "rotary factors")
        part = str(row["output"]).rpartition(".")[2]
        is_part = stored[row["source"]] > 1
        role = role.replace("_", " ") + (f", {part}" if is_part else "")
        total = totals.setdefault((role, row["grid"]), [0, 0])
        total[0] += 1
        total[1] += row["nbytes"]
    lines = ["## What is stored how", "", "| tensors | number | stored as | size |"]
    lines.append("| --- | ---: | --- | ---: |")
    for (role, grid), (number, nbytes) in totals.items():
        lines.append(f"| {role} | {number} | {grid} | {size(nbytes)} |")
    return "\n".join(lines)


def _figures(verification: Verification | None) -> str:
    if verification is None:
        return (
            "## What it lost\n\nNot measured yet. `phiquant verify . --against MODEL` measures it "
            "and writes the figures here."
        )
    rows = [f"| {name} | {value} |" for name, value in figure_rows(verification)]
    verdict = "passed" if verification.passed else "**failed**"
    parts = [
        "## What it lost",
        measured(verification) if verification.figures else "It could not be run.",
        "\n".join(["| figure | value ± standard error |", "| --- | ---: |", *rows]),
        f"The verification {verdict}:",
        "\n".join(
            f"- {check.name}: {check.outcome.value}; {check.finding}"
            for check in verification.checks
        ),
    ]
    return "\n\n".join(parts)


def _notes(manifest: Manifest, verification: Verification | None) -> str:
    lines = [*manifest.plan.get("notes", ()), *_reservations(verification)]
    if not lines:
        return ""
    return "## Good to know\n\n" + "\n".join(f"- {line}" for line in lines)


def _reservations(verification: Verification | None) -> Iterator[str]:
    """What the verification did not see as it should be, or not at all."""
    for check in verification.checks if verification is not None else ():
        if check.outcome in (Outcome.LIMITED, Outcome.UNOBSERVED, Outcome.FAILED):
            yield f"{check.name}, {check.outcome.value}: {check.finding}"


def _making(manifest: Manifest) -> str:
    made = manifest.made
    return (
        "## How it was made\n\n"
        f"```sh\n{_command(manifest)}\n```\n\n"
        f"With phiquant {made.get('phiquant')}, Python {made.get('python')} and NumPy "
        f"{made.get('numpy')}, {made.get('at')}. `phiquant.json` holds the hashes of the source's "
        "weights, and a row with the reason for the format of every tensor."
    )


def _command(manifest: Manifest) -> str:
    source, recipe = manifest.source, manifest.recipe
    words = ["phiquant", "quantize", str(source.get("hub_id") or source.get("name"))]
    for option, value in (
        ("--revision", source.get("revision")),
        ("--adapter", _adapter(source)),
        ("--to", recipe.get("target")),
        ("--precision", recipe.get("precision")),
        ("--type", recipe.get("type")),
        ("--context", recipe.get("context")),
        ("--quality", recipe.get("quality")),
        *((BUDGETS[name], value) for name, value in (recipe.get("budget") or {}).items()),
        *_calibration(recipe),
    ):
        if value is not None:
            words += [option, str(value)]
    if recipe.get("quality") not in (None, "data-free") and not recipe.get("rescaling", True):
        words.append("--no-rescaling")
    for name, value in (recipe.get("options") or {}).items():
        words += ["--option", f"{name}={value}"]
    return shlex.join([*words, "-o", "OUT"])


def _adapter(source: Mapping[str, Any]) -> str | None:
    """The adapter that was added, by its id on the hub or its name."""
    adapter = source.get("adapter")
    if not isinstance(adapter, Mapping):
        return None
    return str(adapter.get("hub_id") or adapter.get("name"))


def _calibration(recipe: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The options that name a text, where it is not the one shipped, and a matrix."""
    if recipe.get("quality") == "fast" and not recipe.get("budget"):
        return  # the glance is nobody's choice
    asked = recipe.get("calibration") or {}
    text, default = asked.get("text"), CalibrationText()
    size = (asked.get("sequences", default.sequences), asked.get("length", default.length))
    yield "--calibration", text
    if size != (default.sequences, default.length):
        yield "--calibration-size", "{}x{}".format(*size)
    yield "--imatrix", asked.get("imatrix")
