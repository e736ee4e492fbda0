"""What another kind of processor changes: bytes, and how much of the loss; print the table.

    python benchmarks/determinism.py CHECKPOINT [--qualities ...] [--kinds ...] [--windows N]
        [--results DIRECTORY]

The checkpoint is quantized to GGUF at INT4 again and again, each time as if on another processor:
numba is told which to compile for, and OpenBLAS which kernels to take. An artifact is compared with
the first one, byte for byte, and its loss is measured in llama.cpp over the held-out text: the mean
divergence from the FP32 reference in nats a token, and the difference to the first one's.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_json
from fidelity import loss_of_artifact, truth_of
from machine import describe_machine, tools_environment
from tables import Table, page

COMMAND = (sys.executable, "-m", "phiquant")
KINDS: Mapping[str, Mapping[str, str]] = {
    "this one": {},
    "other kernels of OpenBLAS": {"OPENBLAS_CORETYPE": "Haswell"},
    "AVX2, no AVX-512": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "no fused multiply-add": {
        "NUMBA_CPU_NAME": "x86-64-v2",
        "NUMBA_CPU_FEATURES": "",
        "OPENBLAS_CORETYPE": "Prescott",
    },
}
"""What a processor is like → how numba and OpenBLAS are told that this is one. Without features of
its own a processor's name stands for no more than it has; else numba adds those at hand.
"""
QUALITIES = ("data-free", "fast", "balanced")
FIGURES = Table(("quality", "processor", "bytes that differ:", "loss:", "difference:"))


def quantized(checkpoint: Path, quality: str, kind: str, work: Path) -> Path:
    """The artifact as a processor of that kind makes it."""
    output = work / f"{quality}-{kind}".replace(" ", "-").replace(",", "")
    shutil.rmtree(output, ignore_errors=True)
    changes = dict(KINDS[kind])
    if "NUMBA_CPU_NAME" in changes:
        changes["NUMBA_CACHE_DIR"] = str(work / f"kernels-{kind}")
    environment = tools_environment(**changes)
    words = ["quantize", checkpoint, "--quality", quality, "-q", "-o", output]
    subprocess.run([*COMMAND, *map(str, words)], env=environment, check=True, capture_output=True)
    return output


def share_of_other_bytes(one: Path, other: Path) -> float:
    """Of two artifacts' files of equal size."""
    first, second = (np.fromfile(next(path.glob("*.gguf")), np.uint8) for path in (one, other))
    return float((first != second).mean())


def measured(given: argparse.Namespace) -> list[dict[str, Any]]:
    truth = truth_of(given.checkpoint, given.windows)
    rows = []
    for quality in given.qualities:
        first: tuple[Path, float] | None = None
        for kind in dict.fromkeys(("this one", *given.kinds)):
            path = quantized(given.checkpoint, quality, kind, given.work)
            loss = loss_of_artifact(path, "gguf", truth).mean
            first = first or (path, loss)
            rows.append(
                {
                    "quality": quality,
                    "processor": kind,
                    "bytes": share_of_other_bytes(first[0], path),
                    "loss": loss,
                    "difference": loss - first[1],
                }
            )
            print(rows[-1], flush=True)
    return rows


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document as JSON keeps it."""
    machine = document["machine"]
    cells = (
        (
            row["quality"],
            row["processor"],
            f"{100 * row['bytes']:.4f} %",
            f"{row['loss']:.6f}",
            f"{row['difference']:+.6f}",
        )
        for row in document["rows"]
    )
    return page(
        [
            "# What another kind of processor changes",
            f"Made by `benchmarks/determinism.py` of {document['checkpoint']} on "
            f"{machine['processor']}, over {document['windows']} windows of 256 tokens: GGUF at "
            "INT4, losses in nats a token.",
            FIGURES.text(cells),
        ]
    )


def write_results(directory: Path, document: Mapping[str, Any]) -> None:
    (directory / "determinism.md").write_text(markdown(document), encoding="utf-8")
    write_json(directory / "determinism.json", document)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--qualities", nargs="+", default=list(QUALITIES))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--work", type=Path, default=Path(".cache/determinism"))
    parser.add_argument("--results", type=Path)
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": describe_machine(),
        "checkpoint": given.checkpoint.resolve().name,
        "windows": given.windows,
        "rows": measured(given),
    }
    print(markdown(document))
    if given.results:
        write_results(given.results, document)


if __name__ == "__main__":
    main()
