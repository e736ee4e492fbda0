"""From losses to rows: ours, the peer's, the ratio of the mean divergences, the bar, passed or not.

More bytes than the peer, or no artifact at all, is a miss whatever the bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

from fidelity import Loss
from making import Cost
from tables import Bar, Row, Table, judged

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Subject:
    """One artifact of one model. No loss where it could not be made or run: `error` says why."""

    model: str
    name: str
    title: str
    loss: Loss | None = None
    cost: Cost | None = None
    error: str | None = None


def ratio_row(what: str, ours: Subject | None, peer: Subject, bar: Bar) -> Row:
    """Ours against the peer's mean divergence, at no more bytes."""
    value: float | None = None
    text = "–"
    if peer.loss is None:
        value, text = inf, "peer not measured"
    elif ours is not None:
        value, text = inf, "not measured"
        if ours.loss:
            value = ours.loss.mean / peer.loss.mean
            text = f"{value:.3f}"
            more = ours.loss.nbytes - peer.loss.nbytes
            if more > 0:
                value, text = inf, f"{text}, {more / MEGABYTE:.2f} MB more"
    return judged(what, shown(ours), shown(peer), (value, text), bar)


def absolute_row(what: str, ours: Subject, bar: Bar) -> Row:
    """Ours against a mean divergence."""
    value = ours.loss.mean if ours.loss else inf
    text = f"{value:.4f}" if ours.loss else "not measured"
    return judged(what, shown(ours), "", (value, text), bar)


def gain_row(what: str, ours: Subject, without: Subject) -> Row:
    """Ours with more bytes against ours without: it must lose less; by how much, and for what."""
    value, text, bar = inf, "not measured", Bar(1, below=True)
    if ours.loss and without.loss:
        value = ours.loss.mean / without.loss.mean
        text = f"{value:.3f} for {ours.loss.nbytes / without.loss.nbytes - 1:+.1%} bytes"
    return judged(what, shown(ours), shown(without), (value, text), bar)


def time_row(what: str, ours: Subject | None, peer: Subject, bar: Bar) -> Row:
    """Ours against the peer's processor time, which other work on the machine does not lengthen."""
    value: float | None = None
    if ours is not None:
        value = ours.cost.processor / peer.cost.processor if ours.cost and peer.cost else inf
    text = "–" if value is None else f"{value:.3f}"
    mine = spent(ours.cost) if ours is not None else "–"
    return judged(what, mine, spent(peer.cost), (value, text), bar)


def curve_row(what: str, points: Sequence[Subject]) -> Row:
    """Whether more bytes asked for never give a higher divergence: the greatest rise."""
    losses = [point.loss for point in points]
    means = [loss.mean for loss in losses if loss]
    rise = max((after - before for before, after in pairwise(means)), default=0)
    whole = len(means) == len(points) >= 6
    shown = f"{means[0]:.3f} to {means[-1]:.4f}, {len(means)} sizes" if means else "–"
    value = max(rise, 0.0) if whole else inf
    text = f"{rise:+.5f}" if whole else f"{len(means)} of {len(points)} points"
    return judged(what, shown, "", (value, text), Bar(0.0, words="greatest rise ≤ 0"))


def shown(subject: Subject | None) -> str:
    if subject is None:
        return "–"
    if subject.loss is None:
        return "failed"
    return f"{subject.loss.mean:.4f}, {subject.loss.nbytes / MEGABYTE:.1f} MB"


def spent(cost: Cost | None) -> str:
    return f"{cost.processor:.0f} s" if cost else "–"


SUBJECTS = Table(
    (
        "model", "artifact", "mean KL:", "99.9% KL:", "top-1:", "tensors:", "wall:", "processor:",
        "memory:", "made by",
    )
)  # fmt: skip


def subject_of(record: Mapping[str, Any]) -> Subject:
    """The subject that `record` was kept of in JSON."""
    loss, cost = record["loss"], record["cost"]
    return Subject(
        **{
            **record,
            "loss": Loss(**loss) if loss else None,
            "cost": Cost(**cost) if cost else None,
        }
    )


def subject_table(subjects: Sequence[Subject]) -> str:
    """Every artifact with all its figures."""
    return SUBJECTS.text(map(subject_cells, subjects))


def subject_cells(subject: Subject) -> tuple[str, ...]:
    loss, cost = subject.loss, subject.cost
    figures = ["–"] * 4
    if loss:
        figures = [
            f"{loss.mean:.4f} ± {loss.mean_error:.4f}",
            f"{loss.quantile_999:.2f} ± {loss.quantile_999_error:.2f}",
            f"{loss.top1:.3f} ± {loss.top1_error:.3f}",
            f"{loss.nbytes / MEGABYTE:.2f} MB",
        ]
    costs = ["–"] * 4
    if cost:
        memory = f"{cost.anonymous / 1e9:.2f} GB"
        costs = [f"{cost.wall:.0f} s", f"{cost.processor:.0f} s", memory, cost.maker]
    title = subject.title if subject.error is None else f"{subject.title} (failed)"
    return (subject.model, title, *figures, *costs)


def stored_list(subjects: Sequence[Subject]) -> str:
    """In which types each artifact stores its matrices."""
    lines = [
        f"- {subject.model}, {subject.title}: {subject.loss.types}; in {subject.loss.measured_in}."
        for subject in subjects
        if subject.loss
    ]
    return "\n".join(lines)


def failures(subjects: Sequence[Subject]) -> Mapping[str, str]:
    return {f"{one.model}, {one.title}": one.error for one in subjects if one.error}
