"""What a newcomer asks first after the demonstration: which file do I take, and how do I run it?"""

from collections.abc import Iterable
from contextlib import suppress

from phiquant.cli.console import out, out_as_is
from phiquant.cli.run_line import in_full, run_line
from phiquant.demo.advice import Measured, advise
from phiquant.demo.demonstration import Row
from phiquant.errors import InputError
from phiquant.recommendation.choice import UNNOTICED

OWN = "microsoft/Phi-4-mini-instruct"


def give_advice(rows: Iterable[Row]) -> None:
    """Print which of the demonstration's artifacts to take, and the lines that run it."""
    advice = advise(rows)
    if advice is None:
        return
    best, small = advice.best, advice.small
    out("\nWhich file do I take, and how do I run it?\n")
    why = f"It loses least: no loss here is below what goes unnoticed ({UNNOTICED:g} nats a token)."
    if best.unnoticed:
        why = (
            f"It is the fastest here of the {best.row.precision.upper()} artifacts, the fewest "
            f"bits whose loss goes unnoticed (below {UNNOTICED:g} nats a token)."
        )
    out(f"Take {_described(best)}. {why}")
    if small is not None:
        out(
            f"Where memory is short, take {_described(small)}. It loses least of all "
            f"{small.row.precision.upper()} artifacts."
        )
    out("\nRun it:")
    _print_run_line(best)
    out(f"\nAsked why the sky is blue, it said: {' '.join(best.answer.split())}")
    if advice.alike:
        out("\nThe same precision in the other runtimes:")
    for other in advice.alike:
        _print_run_line(other)
    out("\nYour own Phi, in the form that suits this machine:\n")
    for command in own_phi(OWN):
        out_as_is(command)


def _described(measured: Measured) -> str:
    made = measured.row.made
    return (
        f"{made.path}: {made.plan.type}, {made.plan.nbytes / 1e6:.0f} MB, "
        f"{measured.loss:.2g} nats, {measured.speed:.0f} tokens/s"
    )


def _print_run_line(measured: Measured) -> None:
    made = measured.row.made
    with suppress(InputError):  # damaged since it was measured
        out_as_is(f"\n{run_line(made.path, made.plan.target)}")


def own_phi(model: str) -> tuple[str, ...]:
    """The lines that make an artifact of `model` for this machine, and measure it."""
    name = model.rpartition("/")[2].lower().removesuffix("-instruct")
    return (
        in_full(f"phiquant quantize {model} --device this -o {name}"),
        in_full(f"phiquant verify {name} --against {model}"),
    )
