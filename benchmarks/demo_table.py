"""Put the table of a demonstration into the README, with what it was measured over.

    phiquant demo -o demo-output --json > demo.json
    python benchmarks/demo_table.py demo.json

The table is the part of the README that `<!-- demo -->` marks; everything else is written by hand.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from marked import bring_up_to_date
from tables import Table

README = Path(__file__).resolve().parent.parent / "README.md"
PART = "demo"
"""The words that mark it."""
TABLE = Table(
    (
        "runtime",
        "precision",
        "type",
        "MB:",
        "bits a weight:",
        "KL divergence:",
        "top-1:",
        "tokens/s:",
    )
)
ELSEWHERE = " \\*"
"""The mark of figures that come from the reference over decoded weights."""
WIDTH = 100


def content(demo: Mapping[str, Any]) -> str:
    """The table of the demonstration, and its notes."""
    lines = [fill(note, WIDTH, break_on_hyphens=False) for note in notes(demo)]
    return "\n\n".join([TABLE.text(map(cells, demo["artifacts"])), *lines])


def cells(artifact: Mapping[str, Any]) -> Sequence[str]:
    """One row of the table."""
    measured = artifact["verification"]
    mark = ELSEWHERE if elsewhere(artifact) else ""
    return (
        artifact["target"],
        artifact["precision"].upper(),
        artifact["type"],
        f"{artifact['nbytes'] / 1e6:.1f}",
        f"{artifact['bits_per_weight']:.2f}",
        short(measured["figures"]["mean"]) + mark,
        f"{100 * measured['figures']['top1_agreement']['value']:.1f} %{mark}",
        f"{measured['generation']['tokens_per_second']:.1f}",
    )


def elsewhere(artifact: Mapping[str, Any]) -> bool:
    """Whether the figures come from the reference and not from the runtime."""
    measured = artifact["verification"]
    return bool(measured["measured_in"] != measured["runtime"])


def short(figure: Mapping[str, float]) -> str:
    """Two digits of a figure and one of its standard error."""
    return f"{figure['value']:.2g} ± {figure['error']:.1g}" if figure["value"] else "0"


def notes(demo: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the table has to know."""
    counts: dict[int, dict[str, None]] = {}
    for one in demo["artifacts"]:
        positions = one["verification"]["figures"]["positions"]
        counts.setdefault(positions, {})[one["precision"].upper()] = None
    over = [f"{count:,} positions for {' and '.join(names)}" for count, names in counts.items()]
    yield (
        f"KL divergence is in nats a token, ± its standard error, over {', '.join(over)}. The "
        f"first row came after {demo['seconds']['first']:.0f} seconds, the last after "
        f"{demo['seconds']['all']:.0f}. The model is compared with itself, not with the network as "
        f"published, from which its KL divergence is {demo['moved']['mean']['value']:.2g}."
    )
    if any(map(elsewhere, demo["artifacts"])):
        yield (
            "\\* MLX is slow on a CPU: a short run in it agreed with the reference forward over "
            "the decoded weights, and the figures come from the latter."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("demo", type=Path, help="what `phiquant demo --json` printed")
    given = parser.parse_args()
    demo = json.loads(given.demo.read_text(encoding="utf-8"))
    bring_up_to_date({README: lambda words: content(demo) if words == PART else None}, check=False)


if __name__ == "__main__":
    main()
