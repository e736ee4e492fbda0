"""Verifications as rich renderables: the figures, the checks, the verdict."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phiquant.evaluation.check import Outcome
from phiquant.evaluation.verification import Verification
from phiquant.reporting.units import estimate, size

STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.LIMITED: "yellow",
    Outcome.UNOBSERVED: "yellow",
}


def verification_table(verification: Verification) -> RenderableType:
    """One verification in full."""
    parts: list[RenderableType] = [_figures(verification), _checks(verification)]
    if verification.answer is not None:
        parts.append(Text(f"It says: {verification.answer.text.strip()}\n", style="italic"))
    parts.append(verdict(verification))
    return Group(*parts)


def verdict(verification: Verification) -> Text:
    """The verdict and its reasons, a line each."""
    word, style = ("PASSED", "bold green") if verification.passed else ("FAILED", "bold red")
    text = Text(word, style=style)
    for reason in verification.reasons:
        text.append(f"\n- {reason}", style="default")
    return text


def figure_rows(verification: Verification) -> Iterator[tuple[str, str]]:
    """Every figure with its name and standard error, for tables of any kind."""
    if verification.size is not None:
        yield "Size on disk", size(verification.size.disk)
        yield (
            "Tensor data",
            f"{size(verification.size.tensors)}, "
            f"{verification.size.bits_per_weight:.3f} bits a weight",
        )
    figures = verification.figures
    if figures is None:
        return
    yield "Perplexity", estimate(figures.candidate_perplexity)
    yield "Perplexity of the FP32 reference", estimate(figures.reference_perplexity)
    yield "Ratio of the two", estimate(figures.perplexity_ratio)
    yield "KL divergence, mean (nats a token)", estimate(figures.mean)
    yield "KL divergence, median", estimate(figures.median)
    yield "KL divergence, 99%", estimate(figures.quantile_99)
    yield "KL divergence, 99.9%", estimate(figures.quantile_999)
    yield "KL divergence, maximum", estimate(figures.maximum)
    yield "Same likeliest token", f"{estimate(figures.top1_agreement, 100)} %"


def measured(verification: Verification) -> str:
    """What was measured on what and where, in a sentence or two."""
    sample = verification.sample
    text = (
        f"{sample.positions:,} positions in {sample.windows} windows of {sample.window} tokens of "
        f"{sample.text} (SHA-256 {sample.sha256[:16]}…), against the FP32 reference of "
        f"{verification.against}. Measured in {verification.measured_in}."
    )
    if verification.by_reference and verification.parity is not None:
        text += (
            f" {verification.runtime} itself ran {verification.parity.tokens} tokens, "
            f"{verification.parity.mean_kl:.1e} nats a token from that; "
            "it is too slow on this machine for the whole text."
        )
    return text


def _figures(verification: Verification) -> RenderableType:
    made = f"{verification.target} {verification.type}"
    title = f"{verification.path.name}: {made} against {verification.against}"
    table = Table(title=title, title_justify="left", show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figure_rows(verification):
        table.add_row(name, value)
    if verification.figures is None:
        return table
    return Group(table, Text(measured(verification), style="dim"))


def _checks(verification: Verification) -> RenderableType:
    table = Table(pad_edge=False)
    for name in ("check", "", "finding"):
        table.add_column(name, overflow="fold")
    for check in verification.checks:
        outcome = Text(check.outcome.value, style=STYLES[check.outcome])
        table.add_row(check.name, outcome, Text(check.finding))
    return table
