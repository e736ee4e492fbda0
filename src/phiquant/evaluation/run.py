"""The part of a verification that happens in the artifact's own runtime."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from phiquant.errors import ArtifactError, TokenizerError
from phiquant.evaluation.arithmetic import Parity, check_parity, measure_parity
from phiquant.evaluation.boundary import check_boundary
from phiquant.evaluation.chat import check_chat
from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.evaluation.figures import TextMeasurement, measure
from phiquant.evaluation.metrics import Divergence
from phiquant.evaluation.parity import check_spacing, check_tokens
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.size import layer_bits
from phiquant.evaluation.stopping import check_generation, check_rule
from phiquant.evaluation.stress import STRESS, spaced, tight
from phiquant.evaluation.structure import serves_only
from phiquant.evaluation.text import shipped_text
from phiquant.evaluation.thresholds import Limit, limit_for
from phiquant.evaluation.truth import ReferenceFigures, hidden_states
from phiquant.evaluation.window import check_window
from phiquant.phi.reference import Reference
from phiquant.phi.tokenizer.chat import chat_prompt
from phiquant.phi.tokenizer.tokenizer import Tokenizer, read_tokenizer
from phiquant.phi.weights import Tokens
from phiquant.progress import OnProgress, Progress
from phiquant.targets.isolation.limits import Limits, limits_for
from phiquant.targets.target import Artifact, Generation, Runner, Target

QUESTION = "Explain in one sentence why the sky is blue."
DECODED = "the reference forward over the decoded weights"


@dataclass(frozen=True, slots=True)
class Run:
    """What the runtime showed; figures are None where it did not get that far."""

    checks: tuple[Check, ...]
    runtime: str | None
    by_reference: bool = False
    """Whether the reference over the decoded weights spoke for a runtime that is too slow."""
    parity: Parity | None = None
    figures: Divergence | None = None
    prompt: str | None = None
    answer: Generation | None = None


def run(
    runner: Runner,
    artifact: Artifact,
    truth: ReferenceFigures,
    settings: Settings,
    on_progress: OnProgress,
) -> Run:
    """Everything that is asked of a loaded artifact."""
    tokenizer = truth.tokenizer
    expected = truth.checkpoint.architecture
    special = {token.id: token.text for token in tokenizer.definition.added}
    corpus = (*shipped_text().content.split("\n\n"), *STRESS, *tight(special.values()))
    checks = [
        _check_tokens(runner, artifact, truth, corpus),
        check_spacing(runner, tokenizer, spaced(special.values())),
        *check_chat(runner, tokenizer),
        _check_rule(runner, truth, special),
    ]
    decoded = Reference(artifact)
    try:
        parity = measure_parity(runner, decoded, truth.windows[0])
    except ArtifactError as error:
        return Run((*checks, failed("runtime", str(error))), runner.runtime)
    limit = limit_for(layer_bits(artifact, expected))
    checks.append(check_parity(parity, runner.runtime, limit))
    if serves_only(artifact, expected) == "long":
        truth = truth.with_long_factors(on_progress)
    measured = _measure(runner, decoded, truth, on_progress)
    checks.append(_check_divergence(measured.figures, limit, settings))
    prompt = chat_prompt(QUESTION, special.values())
    limit_of_answer = max(1, settings.answer // 4) if runner.slow else settings.answer
    answer = runner.generate(_prompt_tokens(prompt, tokenizer), limit_of_answer)
    ends = {end: tokenizer.definition.pieces[end] for end in tokenizer.special.ends}
    checks.append(check_generation(runner, measured.likely_ends, ends, answer))
    if settings.boundary:
        text = np.concatenate(truth.windows)
        for check in (check_boundary, check_window):
            outcome = check(runner, artifact, expected, text, limit)
            checks += [outcome] if outcome else []
    return Run(
        checks=tuple(checks),
        runtime=runner.runtime,
        by_reference=runner.slow,
        parity=parity,
        figures=measured.figures,
        prompt=prompt,
        answer=answer,
    )


def limits_of_run(target: Target[Any], truth: ReferenceFigures, settings: Settings) -> Limits:
    """What the runtime may take for all of it, in memory and time."""
    architecture = truth.checkpoint.architecture
    long, sliding = architecture.rope.long, architecture.sliding_window
    lengths = [len(truth.windows[0]) + settings.answer] * (len(truth.windows) + len(STRESS))
    if settings.boundary:  # two sequences across LongRoPE's, one across the window's
        lengths += [long.original_positions + 1] * 2 if long else []
        lengths += [2 * sliding] if sliding else []
    return limits_for(target, architecture, max(lengths), sum(lengths))


def _check_tokens(
    runner: Runner, artifact: Artifact, truth: ReferenceFigures, corpus: tuple[str, ...]
) -> Check:
    """`check_tokens`; rare text may differ where the artifact's tokenizer.json is right."""
    check = check_tokens(runner, truth.tokenizer, corpus)
    if not check.failed or not _has_right_tokenizer(artifact, truth, corpus):
        return check
    ordinary = [text for text in corpus if text not in STRESS]
    if check_tokens(runner, truth.tokenizer, ordinary).failed:
        return check
    return Check(
        check.name,
        Outcome.LIMITED,
        "the artifact's tokenizer.json gives the checkpoint's tokens, and the runtime reads it "
        f"otherwise on rare characters: {check.finding}",
    )


def _has_right_tokenizer(
    artifact: Artifact, truth: ReferenceFigures, corpus: tuple[str, ...]
) -> bool:
    """Whether the artifact's tokenizer.json, read by the tokenizers library, gives the tokens of
    the checkpoint's tokenizer for every text of the corpus.

    Its bytes need not be the checkpoint's: a step may be added for a runtime, and a checkpoint
    with a SentencePiece model alone has no such file.
    """
    if not (artifact.path / "tokenizer.json").is_file():
        return False
    try:
        own = read_tokenizer(artifact.path, truth.checkpoint.architecture.vocabulary_size)
        return all(own.encode(text) == truth.tokenizer.encode(text) for text in corpus)
    except TokenizerError:
        return False


def _check_rule(runner: Runner, truth: ReferenceFigures, special: dict[int, str]) -> Check:
    tokenizer = truth.tokenizer
    ends = {end: tokenizer.definition.pieces[end] for end in tokenizer.special.ends}
    seen = np.unique(np.concatenate(truth.windows)).tolist()
    ordinary = [token for token in seen if token not in special]
    return check_rule(runner, ends, ordinary, special)


def _prompt_tokens(prompt: str, tokenizer: Tokenizer) -> Tokens:
    begin = [tokenizer.special.bos] if tokenizer.special.add_bos else []
    return np.array([*begin, *tokenizer.encode(prompt)], np.int32)


def _measure(
    runner: Runner, decoded: Reference, truth: ReferenceFigures, on_progress: OnProgress
) -> TextMeasurement:
    """The figures, from the runtime; from the reference over its weights where it is slow."""
    ends, windows = truth.tokenizer.special.ends, truth.windows
    if runner.slow:
        states = hidden_states(decoded, windows, on_progress, "decoded weights")
        return measure(truth, (decoded.head(hidden) for hidden in states), ends)
    advance = _counter("runtime", len(windows), on_progress)
    return measure(truth, (runner.logits(window) for window in windows), ends, advance)


def _counter(stage: str, total: int, on_progress: OnProgress) -> Callable[[], None]:
    done: Iterator[int] = iter(range(1, total + 1))
    return lambda: on_progress(Progress(stage, next(done), total, "windows"))


def _check_divergence(figures: Divergence, limit: Limit, settings: Settings) -> Check:
    """Whether the mean divergence is within what the artifact's precision explains."""
    most, whence = limit.mean_kl, f"{limit.precision} artifacts stay below"
    if settings.max_kl is not None:
        most, whence = settings.max_kl, "the limit asked for is"
    finding = f"mean KL divergence is {figures.mean.value:.3g} nats a token; {whence} {most:g}"
    if not figures.mean.value <= most:
        return failed("divergence", finding)
    return passed("divergence", finding)
