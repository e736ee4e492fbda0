"""`verify`: an artifact against its checkpoint, in its own runtime, ending in a verdict.

In order: its files against their record, its tensors and metadata against the checkpoint, then,
in the runtime: tokens, arithmetic, the figures over a text, where generations stop, and
LongRoPE's boundary. A fault does not end the work; everything that can still be asked is asked,
and the verdict lists all reasons.
"""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError, InputError, RequestError
from phiquant.evaluation.arithmetic import Parity
from phiquant.evaluation.check import Check, Outcome, failed
from phiquant.evaluation.integrity import check_files
from phiquant.evaluation.metrics import Divergence
from phiquant.evaluation.opening import target_of
from phiquant.evaluation.run import DECODED, Run, limits_of_run, run
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.size import Size, measure_size
from phiquant.evaluation.structure import (
    WeightErrors,
    check_extra,
    check_metadata,
    check_weights,
)
from phiquant.evaluation.text import EvaluationSample
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.host.kinds import LISTENER, PLACE, instance, optional
from phiquant.phi.checkpoint import Checkpoint
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.targets.isolation.isolated import Launched, launch
from phiquant.targets.target import Artifact, Generation, Target

AGAINST = instance(
    (str, os.PathLike, Checkpoint, ReferenceFigures),
    "the original checkpoint",
    "give its directory or id, a Checkpoint, or ReferenceFigures",
)
SETTINGS = optional(instance(Settings, "Settings", "give Settings(windows=1), for instance"))


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found about one artifact. Figures are None where it could not be run at all."""

    path: Path
    target: str
    type: str
    against: str
    """The checkpoint's name."""
    sample: EvaluationSample
    checks: tuple[Check, ...]
    size: Size | None = None
    weight_errors: WeightErrors | None = None
    runtime: str | None = None
    """Name and version of the runtime that the artifact was loaded in."""
    by_reference: bool = False
    """Whether the figures come from the reference over the decoded weights, not the runtime."""
    parity: Parity | None = None
    figures: Divergence | None = None
    prompt: str | None = None
    answer: Generation | None = None

    @property
    def passed(self) -> bool:
        """The verdict: whether no check failed."""
        return not any(check.failed for check in self.checks)

    @property
    def measured_in(self) -> str | None:
        """Where the figures come from, in words."""
        if self.figures is None:
            return None
        return DECODED if self.by_reference else self.runtime

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it failed, or what limits a pass: sentences, the gravest first."""
        order = (Outcome.FAILED, Outcome.LIMITED, Outcome.UNOBSERVED)
        return tuple(
            f"{check.name}: {check.finding}"
            for outcome in order
            for check in self.checks
            if check.outcome is outcome
        )

    def as_json(self) -> dict[str, Any]:
        """The whole verification as it is recorded and printed with --json."""
        parts = {
            "size": self.size,
            "weight_errors": self.weight_errors,
            "parity": self.parity,
            "figures": self.figures,
            "text": self.sample,
        }
        document = {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "artifact": self.path.name,
            "target": self.target,
            "type": self.type,
            "against": self.against,
            "runtime": self.runtime,
            "measured_in": self.measured_in,
            **{name: part.as_json() if part else None for name, part in parts.items()},
            "checks": [check.as_json() for check in self.checks],
            "generation": self._generation(),
        }
        return {key: _finite(value) for key, value in document.items()}

    def _generation(self) -> Mapping[str, Any] | None:
        if self.answer is None:
            return None
        return {
            "prompt": self.prompt,
            "text": self.answer.text,
            "tokens": len(self.answer.tokens),
            "stopped": self.answer.stopped,
            "tokens_per_second": self.answer.tokens_per_second,
        }


def _finite(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def verify(
    path: str | os.PathLike[str],
    against: ReferenceFigures | Checkpoint | str | os.PathLike[str],
    settings: Settings | None = None,
    on_progress: OnProgress = ignore,
    *,
    adapter: str | os.PathLike[str] | None = None,
) -> Verification:
    """Verify the artifact at `path`, a directory or a file, whoever made it.

    `against` is the checkpoint that it was made from, opened or named as in `quantize`, or, to
    verify several artifacts of one checkpoint, the `ReferenceFigures` that were measured once. A
    checkpoint that is named may have an `adapter` over it, as in `quantize`. The verdict is in the
    result; nothing is written. Raises ArtifactError if `path` is no artifact at all, InputError if
    the checkpoint or the text will not do, MissingDependency if the runtime is not installed.
    """
    PLACE.check(path=path)
    optional(PLACE).check(adapter=adapter)
    AGAINST.check(against=against)
    SETTINGS.check(settings=settings)
    LISTENER.check(on_progress=on_progress)
    settings, path = settings or Settings(), Path(path)
    target = target_of(path)
    if adapter is not None and isinstance(against, ReferenceFigures):
        raise RequestError("`adapter` goes over a checkpoint that is named; this one is measured")
    if not isinstance(against, ReferenceFigures):
        against = ReferenceFigures.measure(against, settings, on_progress, adapter=adapter)
    try:
        artifact = target.open(path)
        check = check_metadata(artifact.architecture, against.checkpoint.architecture)
    except InputError as error:
        return _unreadable(path, target, against, str(error))
    return _verify(artifact, check, _Task(path, target, against, settings, on_progress))


@dataclass(frozen=True, slots=True)
class _Task:
    path: Path
    target: Target[Any]
    truth: ReferenceFigures
    settings: Settings
    on_progress: OnProgress


def _verify(artifact: Artifact, metadata: Check, task: _Task) -> Verification:
    checkpoint = task.truth.checkpoint
    limits = partial(limits_of_run, task.target, task.truth, task.settings)
    with closing(launch(task.target, task.path, limits)) as launched:
        checks = [*check_files(task.path)]
        errors, structure = _weights(artifact, task)
        checks += structure
        checks.append(check_extra(artifact, task.target, checkpoint))
        checks.append(metadata)
        ran = Run((), None) if structure[0].failed else _run(launched, artifact, task)
    return Verification(
        path=task.path,
        target=task.target.name,
        type=artifact.type,
        against=checkpoint.name,
        sample=task.truth.sample,
        checks=(*checks, *ran.checks),
        size=measure_size(task.path, artifact, checkpoint.architecture),
        weight_errors=errors,
        runtime=ran.runtime,
        by_reference=ran.by_reference,
        parity=ran.parity,
        figures=ran.figures,
        prompt=ran.prompt,
        answer=ran.answer,
    )


def _weights(artifact: Artifact, task: _Task) -> tuple[WeightErrors, tuple[Check, ...]]:
    total = len(task.truth.checkpoint.tensors)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        task.on_progress(Progress("weights", done, total, "tensors"))

    return check_weights(artifact, task.truth.checkpoint, advance)


def _run(launched: Launched, artifact: Artifact, task: _Task) -> Run:
    try:
        with launched as runner:
            return run(runner, artifact, task.truth, task.settings, task.on_progress)
    except ArtifactError as error:
        return Run((failed("runtime", f"the runtime cannot run the artifact: {error}"),), None)


def _unreadable(
    path: Path, target: Target[Any], truth: ReferenceFigures, reason: str
) -> Verification:
    return Verification(
        path=path,
        target=target.name,
        type="unknown",
        against=truth.checkpoint.name,
        sample=truth.sample,
        checks=(*check_files(path), failed("tensors", reason)),
    )
