"""Make the peers' artifacts and ours at no more bytes, and measure what each lost, in one go.

    python benchmarks/accuracy.py [--peers PYTHON] [--only NAME...] [--reuse peers] [--quality best]

On the demo model, tied and untied, over a text that nothing was tuned on
(`texts/held-out.txt`, windows of 256 tokens). Each peer's artifact is made as its users make it;
ours is then asked for at the peer's bytes of tensor data, through the command line. Both run in the
same stock runtime (see `fidelity.py`), against the FP32 checkpoint. What making each took is
measured around the process.

Also measured: INT8 of every target; what is gained by keeping attention's values at 8 bits, as
`balanced` and `best` do; and the curve, the divergence over a row of sizes, which must never rise
with the size.

Writes `results/accuracy.json`, `accuracy.md` and `accuracy-curve.svg`, after every step anew; exits
with 1 when a bar is missed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import DEFAULT_PEERS
from contenders import Task
from curve import plot
from demo_models import MODELS, demo_model
from fidelity import (
    HELD_OUT,
    WINDOW,
    Loss,
    kept,
    loss_of_artifact,
    loss_of_weights,
    rounded_by_autoround,
    truth_of,
)
from machine import describe_machine, listed, our_versions, peer_versions
from making import Made, MakingError, make
from opponents import (
    AUTOROUND,
    BY_NAME,
    CALIBRATING,
    EVERY,
    INT8_BAR,
    INT8_TARGETS,
    MATCHES,
    PEERS,
    PROTECTED_TARGETS,
    RESCALED,
    Match,
    Peer,
    Request,
    requested,
    requested_int8,
    requested_protection,
    requested_size,
)
from scores import (
    Subject,
    absolute_row,
    curve_row,
    failures,
    gain_row,
    ratio_row,
    stored_list,
    subject_of,
    subject_table,
    time_row,
)
from tables import Bar, Row, page, verdict_table

from phiquant.calibration.text import shipped_sample
from phiquant.errors import PhiquantError
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.targets.table import target

ROOT = Path(__file__).resolve().parent.parent
INT8 = "int8"
CURVE = "curve"
PROTECTION = "protection"
BITS = (4.25, 4.5, 4.75, 5.0, 5.5, 6.5, 8.5)
"""The sizes of a curve, in bits a weight over the whole model. Of the demo model's rows the
blocks of GGUF's K-quants divide those of `down_proj` only, and Q4_0 is the least for the others.
"""
NAMES = (*(match.peer for match in MATCHES), INT8, PROTECTION, CURVE)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    peers: Path
    models: tuple[str, ...]
    checkpoints: Path | None
    work: Path
    reuse: str
    only: tuple[str, ...]
    quality: str
    ours: bool
    windows: int
    targets: tuple[str, ...]
    results: Path


def read_options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="their Python")
    parser.add_argument("--models", nargs="+", choices=EVERY, default=list(MODELS))
    parser.add_argument("--checkpoints", type=Path, help="with tied and untied; else made in WORK")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "accuracy")
    parser.add_argument(
        "--reuse",
        choices=("none", "peers", "all"),
        default="none",
        help="artifacts that an earlier run left in WORK and that are not made again",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--quality", default="best", help="what ours is asked for")
    parser.add_argument("--no-ours", dest="ours", action="store_false", help="the peers alone")
    parser.add_argument("--windows", type=int, default=24, help=f"windows of {WINDOW} tokens")
    parser.add_argument("--targets", nargs="+", default=["gguf"], help="whose curves are drawn")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = vars(parser.parse_args(arguments))
    if given["quality"] not in CALIBRATING and set(given["only"]) <= {PROTECTION, CURVE}:
        only = " and ".join(given["only"])
        parser.error(f"{only}: nothing of quality {given['quality']} is measured there")
    # Not resolved: a virtual environment's python is a link, and must be called as one.
    given |= {name: path.absolute() for name, path in given.items() if isinstance(path, Path)}
    return Options(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


@dataclass(slots=True)
class Report:
    """What was found so far."""

    machine: dict[str, object]
    versions: dict[str, dict[str, str]]
    sample: dict[str, object] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    curves: dict[str, list[Subject]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """One model on the bench: the reference's figures, and where its artifacts are made."""

    model: str
    truth: ReferenceFigures
    task: Task
    options: Options

    @property
    def weights(self) -> int:
        return sum(prod(weight.shape) for weight in self.truth.checkpoint.architecture.weights())


def main() -> None:
    options = read_options()
    if not options.peers.exists():
        sys.exit(f"{options.peers} does not exist; run `make peers`, or pass --peers PYTHON.")
    versions = {"ours": our_versions(), "peers": peer_versions(options.peers)}
    report = Report(describe_machine(), versions)
    began = time.perf_counter()
    for model in options.models:
        bench = set_up(model, options)
        report.sample = bench.truth.sample.as_json() | {"text": HELD_OUT.name}
        for subjects, rows in steps(bench, report):
            report.subjects += [one for one in subjects if one not in report.subjects]
            report.rows += rows
            publish(report, options.results, time.perf_counter() - began)
    text = publish(report, options.results, time.perf_counter() - began)
    print(text)
    sys.exit(1 if any(row.passed is False for row in report.rows) else 0)


def set_up(model: str, options: Options) -> Bench:
    """The model's checkpoint, what the reference says of the text, the peers' tokens."""
    home = options.work / model
    home.mkdir(parents=True, exist_ok=True)
    checkpoint = demo_model(model, options.work, options.checkpoints)
    say(f"{model}: the reference over {options.windows} windows")
    truth = truth_of(checkpoint, options.windows)
    threads = len(os.sched_getaffinity(0))
    task = Task(checkpoint, home / "any", options.peers, threads)
    for peer in PEERS:
        if peer.tokens is not None and peer.name in options.only:
            size = peer.tokens
            sample = shipped_sample(truth.tokenizer, size.sequences, size.length)
            np.save(size.file(task), np.stack(sample.tokens))
    return Bench(model, truth, task, options)


def steps(bench: Bench, report: Report) -> Iterator[tuple[list[Subject], list[Row]]]:
    """Everything that is measured on one model, one comparison at a time."""
    options = bench.options
    for match in MATCHES:
        bar = match.bar(bench.model, options.quality)
        if match.peer in options.only and bar is not None:
            yield compare(bench, match, Bar(bar, match.below and bench.model in RESCALED))
    if not options.ours:
        return
    if INT8 in options.only:
        for name in INT8_TARGETS:
            ours = our_artifact(bench, requested_int8(name, options.quality))
            what = f"{target(name).title} INT8, {bench.model}"
            yield [ours], [absolute_row(what, ours, Bar(INT8_BAR))]
    if PROTECTION in options.only and options.quality in CALIBRATING:
        for name in PROTECTED_TARGETS:
            with_values, plain = (
                our_artifact(bench, one) for one in requested_protection(name, options.quality)
            )
            what = f"{target(name).title}, values at 8 bits beside all at 4, {bench.model}"
            yield [with_values, plain], [gain_row(what, with_values, plain)]
    if CURVE in options.only and options.quality in CALIBRATING:
        for name in options.targets:
            points = [
                our_artifact(bench, requested_size(name, size, options.quality))
                for size in (int(bits * bench.weights / 8) for bits in BITS)
            ]
            title = f"{target(name).title}, {bench.model}"
            report.curves[title] = points
            yield points, [curve_row(f"curve of {title}", points)]


def compare(bench: Bench, match: Match, bar: Bar) -> tuple[list[Subject], list[Row]]:
    """A peer's artifact and ours in its place."""
    if match.peer == AUTOROUND:
        peer, ours = against_autoround(bench, match)
    else:
        peer = peer_artifact(bench, BY_NAME[match.peer])
        ours = None
        if bench.options.ours and peer.loss is not None:
            ours = our_artifact(bench, requested(match, peer.loss.nbytes, bench.options.quality))
    rows = [ratio_row(f"{match.what}, {bench.model}", ours, peer, bar)]
    if match.time_bar is not None:
        what = f"{match.what}, {bench.model}: processor time"
        rows.append(time_row(what, ours, peer, Bar(match.time_bar)))
    return [peer, *([ours] if ours else [])], rows


def peer_artifact(bench: Bench, peer: Peer) -> Subject:
    kind = peer.target
    assert kind is not None

    def loss(made: Made) -> Loss:
        return loss_of_artifact(made.path, kind, bench.truth)

    reuse = bench.options.reuse != "none"
    return subject(bench, (peer.name, peer.title), lambda: made_by(bench, peer, reuse), loss)


def our_artifact(bench: Bench, request: Request) -> Subject:
    def loss(made: Made) -> Loss:
        return loss_of_artifact(made.path, request.target, bench.truth)

    return subject(bench, (request.name, titled(request)), lambda: ours_made(bench, request), loss)


def titled(request: Request) -> str:
    return f"ours: {' '.join(request.words)}"


def against_autoround(bench: Bench, match: Match) -> tuple[Subject, Subject | None]:
    """Both over their decoded weights; embedding and head are ours on both sides."""
    peer, truth = BY_NAME[match.peer], bench.truth
    request = requested(match, 0, bench.options.quality)
    place = target(request.target)

    def our_loss(made: Made) -> Loss:
        artifact = place.open(made.path)
        size = sum(entry.nbytes for entry in artifact.entries())
        return loss_of_weights(artifact, size, artifact.type, truth)

    name = (request.name, titled(request))
    ours = subject(bench, name, lambda: ours_made(bench, request), our_loss)

    def their_loss(made: Made) -> Loss:
        artifact = place.open(ours_made(bench, request, reuse=True).path)
        source = rounded_by_autoround(made.path, artifact, truth.checkpoint)
        size = sum(
            # 4 bits a weight, and a scale of 16 and a zero point of 4 for every 32
            prod(entry.shape) * 37 // 64 if entry.name in source.rounded else entry.nbytes
            for entry in artifact.entries()
        )
        return loss_of_weights(source, size, "W4 asymmetric g32", truth)

    reuse = bench.options.reuse != "none"
    theirs = subject(
        bench, (peer.name, peer.title), lambda: made_by(bench, peer, reuse), their_loss
    )
    return theirs, ours if bench.options.ours else None


def made_by(bench: Bench, peer: Peer, reuse: bool) -> Made:
    return make(peer.name, peer.command, bench.task, reuse)


def ours_made(bench: Bench, request: Request, reuse: bool | None = None) -> Made:
    allowed = bench.options.reuse == "all" if reuse is None else reuse
    return make(request.name, request.command, bench.task, allowed)


def subject(
    bench: Bench,
    name: tuple[str, str],
    making: Callable[[], Made],
    loss: Callable[[Made], Loss],
) -> Subject:
    """Make and measure an artifact (`name` and title); a failure is a finding, not the end."""
    say(f"{bench.model}: {name[1]}")
    try:
        made = making()
        lost = kept(made.path.parent, bench.truth, lambda: loss(made))
    except (MakingError, PhiquantError) as error:
        say(f"  failed: {error}")
        return Subject(bench.model, *name, error=str(error))
    say(f"  {lost.mean:.4f} nats, {lost.nbytes / 1e6:.2f} MB, {made.cost.processor:.0f} s")
    return Subject(bench.model, *name, loss=lost, cost=made.cost)


def publish(report: Report, results: Path, seconds: float) -> str:
    """Write what there is so far, and return it as text."""
    results.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": report.machine,
        "versions": report.versions,
        "sample": report.sample,
        "rows": [row.record for row in report.rows],
        "artifacts": [asdict(one) for one in report.subjects],
        "seconds": seconds,
    }
    if report.curves and plot(report.curves, results / "accuracy-curve.svg"):
        document["curve"] = "accuracy-curve.svg"
    text = markdown(document)
    (results / "accuracy.json").write_text(json.dumps(document, indent=2, default=str) + "\n")
    (results / "accuracy.md").write_text(text)
    return text


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document as JSON keeps it."""
    machine, sample, versions = (document[name] for name in ("machine", "sample", "versions"))
    subjects = [subject_of(record) for record in document["artifacts"]]
    parts = [
        "# Accuracy at the peers' bytes",
        "Mean KL divergence of the next token's distribution from the FP32 model's, in nats. A "
        "ratio is ours over the peer's; ours has at most the peer's bytes of tensor data. In rows "
        "on values at 8 bits the peer is ours without them, and has fewer.",
        verdict_table(document["rows"]),
        f"Text: {sample['text']} (SHA-256 {str(sample['sha256'])[:12]}), {sample['windows']} "
        f"windows of {sample['window']} tokens.",
        f"Machine: {machine['processor']}, {machine['cores']} cores; load "
        f"{machine['load_before']:.1f} before. The whole run took {document['seconds']:.0f} s.",
        *(f"{name.capitalize()}: {listed(found)}." for name, found in versions.items()),
        "## Every artifact",
        subject_table(subjects),
        "## What they store",
        stored_list(subjects),
    ]
    failed = failures(subjects)
    if failed:
        parts += ["## What failed", *(f"- {name}: {why}" for name, why in failed.items())]
    return page(parts)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
