"""Fill the marked parts of the pages on devices with what the tool says today.

    python benchmarks/device_pages.py [--check]

A part begins with a line that says what belongs there, and ends with `<!-- end -->`:

    <!-- phiquant recommend MODEL --device NAME -->     the command and what it prints
    <!-- choices MODEL --class CLASS -->                a row for each device of the class
    <!-- choices MODEL --device NAME --device NAME -->  a row for each of these

Everything else is written by hand and left alone. `--check` writes nothing, and ends with 1 where a
page is not what it would be; a test does the same.
"""

import argparse
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from marked import run
from tables import Table

from phiquant.cli.recommending import recommend_command
from phiquant.devices.table import devices
from phiquant.recommendation.candidates import Wish
from phiquant.recommendation.recommend import recommend

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("iot", "mobile", "ai-pc", "mac", "nvidia")),
)
CHOICES = Table(("`--device`", "", "choice", "weights:", "in use:", "tokens/s:", "loss:"))


def content(words: str) -> str | None:
    """What belongs in a part that begins with `words`, if this command fills it."""
    if words.startswith("choices "):
        return choices(words.removeprefix("choices "))
    if words.startswith("phiquant recommend "):
        return command(words.removeprefix("phiquant recommend "))
    return None


def command(words: str) -> str:
    """`phiquant recommend` with these words, and what it prints."""
    parser = words_parser()
    parser.add_argument("--device", required=True)
    given = parser.parse_args(words.split())
    with redirect_stdout(StringIO()) as printed:
        recommend_command(given.model, given.device, Wish(), [], None).render()
    lines = [line.rstrip() for line in printed.getvalue().rstrip().splitlines()]
    return "\n".join(["```", f"$ phiquant recommend {words}", *lines, "```"])


def choices(words: str) -> str:
    """A table: what is chosen for each device."""
    parser = words_parser()
    parser.add_argument("--class", dest="kind")
    parser.add_argument("--device", action="append", default=[])
    given = parser.parse_args(words.split())
    names = given.device or [one.name for one in devices().values() if one.kind == given.kind]
    return CHOICES.text(choice(given.model, name) for name in names)


def words_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="a marked part", add_help=False)
    parser.add_argument("model")
    return parser


def choice(model: str, device: str) -> tuple[str, ...]:
    """The cells of one device's row."""
    recommendation = recommend(model, device)
    one, on = recommendation.chosen, recommendation.device
    if one is None:
        other = recommendation.nearest[-1] if recommendation.nearest else ""
        return f"`{device}`", on.title, f"nothing; {other}", "", "", "", ""
    return (
        f"`{device}`",
        on.title,
        f"{one.engine.target} ({one.engine.provider}) `{one.type}`",
        f"{one.nbytes / 1e9:.2f} GB",
        f"{one.footprint.needed / 1e9:.1f} of {on.usable / 1e9:.1f} GB",
        f"{one.speed:.3g}",
        f"{one.loss.nats:.2g}{'' if one.loss.origin == 'demo' else ' ~'}",
    )


if __name__ == "__main__":
    run(__doc__, {ROOT / name: content for name in PAGES})
