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


def verification_table(found: Verification) -> RenderableType:
    """One verification in full."""
    parts: list[RenderableType] = [_figures(found), _checks(found)]
    if found.answer is not None:
        parts.append(Text(f"It says: {found.answer.text.strip()}\n", style="italic"))
    parts.append(verdict(found))
    return Group(*parts)


def verdict(found: Verification) -> Text:
    """The verdict and its reasons, a line each."""
    word, style = ("PASSED", "bold green") if found.passed else ("FAILED", "bold red")
    text = Text(word, style=style)
    for reason in found.reasons:
        text.append(f"\n- {reason}", style="default")
    return text


def figure_rows(found: Verification) -> Iterator[tuple[str, str]]:
    """Every figure with its name and standard error, for tables of any kind."""
    if found.size is not None:
        yield "Size on disk", size(found.size.disk)
        yield (
            "Tensor data",
            f"{size(found.size.tensors)}, {found.size.bits_per_weight:.3f} bits a weight",
        )
    figures = found.figures
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


def measured(found: Verification) -> str:
    """What was measured on what and where, in a sentence or two."""
    sample = found.sample
    text = (
        f"{sample.positions:,} positions in {sample.windows} windows of {sample.window} tokens of "
        f"{sample.text} (SHA-256 {sample.sha256[:16]}…), against the FP32 reference of "
        f"{found.against}. Measured in {found.measured_in}."
    )
    if found.measured_in != found.runtime and found.parity is not None:
        text += (
            f" {found.runtime} itself ran {found.parity.tokens} tokens, {found.parity.mean_kl:.1e} "
            "nats a token from that; it is too slow on this machine for the whole text."
        )
    return text


def _figures(found: Verification) -> RenderableType:
    title = f"{found.path.name}: {found.target} {found.type} against {found.against}"
    table = Table(title=title, title_justify="left", show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figure_rows(found):
        table.add_row(name, value)
    if found.figures is None:
        return table
    return Group(table, Text(measured(found), style="dim"))


def _checks(found: Verification) -> RenderableType:
    table = Table(pad_edge=False)
    for name in ("check", "", "finding"):
        table.add_column(name, overflow="fold")
    for check in found.checks:
        outcome = Text(check.outcome.value, style=STYLES[check.outcome])
        table.add_row(check.name, outcome, Text(check.finding))
    return table
