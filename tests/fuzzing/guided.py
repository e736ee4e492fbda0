"""Fuzzing that is led by coverage: Atheris keeps the files that reach new code, and changes those.

    python tests/fuzzing/guided.py [--seconds 300] [--record FILE] ["onnx graph" ...]

`fuzz.py` changes the sound file again and again; whether that misses code, and whether files that
are led there find anything, shows here. Each parser is read for `--seconds` both ways, by the same
mutations, and the branches that were reached are counted. A finding is an exception of another
kind than PhiquantError, or a reading of more than 20 seconds. Needs Atheris (`make fuzz-guided`).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

WEAKEST = ("onnx graph", "openvino graph", "tokenizer.json", "tokenizer.model", "gguf", "template")
"""The parsers with most faults of their own."""
BYTES = 1 << 16
"""Of the longest file that is kept."""
PROGRESS = re.compile(r"#(\d+)\s+(?:INITED|NEW|REDUCE|pulse|DONE)\s+cov: (\d+)")
HEAD = "| parser | files | files led | branches | branches led | findings |"


@dataclass(frozen=True)
class Reached:
    """What became of a parser in one of the two ways."""

    files: int
    branches: int
    finding: str
    """The last words of a reading that ended the run, or nothing."""


def reach(parser: str, seconds: int, seed: int, *, led: bool) -> Reached:
    """Fuzz a parser in a process of its own."""
    with tempfile.TemporaryDirectory() as kept:
        words = [sys.executable, __file__, "--inside", parser, "--led" if led else "--plain", kept]
        limits = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={BYTES}", "-timeout=20"]
        ended = subprocess.run([*words, *limits], capture_output=True, text=True, check=False)
    counts = PROGRESS.findall(ended.stderr)
    if not counts:
        raise SystemExit(ended.stderr)
    finding = "" if ended.returncode == 0 else ended.stderr[-2000:]
    return Reached(int(counts[-1][0]), int(counts[-1][1]), finding)


def with_kernels() -> list[str]:
    """Modules that numba compiles, which it cannot once branches are counted in them."""
    root = HERE.parent.parent / "src"
    paths = (path for path in root.rglob("*.py") if "host.kernel" in path.read_text("utf-8"))
    return [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]


def fuzz_inside(name: str, words: list[str], *, led: bool) -> None:
    """In a process of its own: hand everything to libFuzzer, whose options `words` are."""
    import atheris

    with atheris.instrument_imports(include=["phiquant"], exclude=with_kernels()):
        from fuzzing.parsers import PARSERS, copy_for, prepare, write_sound
    from phiquant.errors import PhiquantError

    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as place:
        sound = Path(place, "sound")
        write_sound(sound)
        prepare(sound)
        path = copy_for(parser, sound, Path(place, "copy"))
        first = path.read_bytes()
        Path(words[0], "sound").write_bytes(first)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(PhiquantError):
                parser.read(path.parent)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            random = Random(seed)
            changed = data if led else first
            for _ in range(1 + random.randrange(3)):
                changed = random.choice(parser.mutations)(random, changed)
            return changed[:most]

        atheris.Setup([__file__, *words], read, custom_mutator=mutate)
        atheris.Fuzz()


def table(reached: dict[str, tuple[Reached, Reached]]) -> str:
    """Both ways, a row a parser."""
    rows = [HEAD, "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, (plain, led) in reached.items():
        findings = sum(bool(way.finding) for way in (plain, led))
        rows.append(
            f"| {name} | {plain.files:,} | {led.files:,} | {plain.branches:,} | "
            f"{led.branches:,} | {findings} |"
        )
    return "\n".join(rows)


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    options.add_argument("parser", nargs="*", default=WEAKEST)
    options.add_argument("--seconds", type=int, default=300, help="of each parser, in each way")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--record", type=Path, help="a file for the table")
    given = options.parse_args()
    reached = {}
    for name in given.parser:
        reached[name] = tuple(
            reach(name, given.seconds, given.seed, led=led) for led in (False, True)
        )
        for way in reached[name]:
            print(way.finding, end="", flush=True)
    text = table(reached)
    print(text)
    if given.record is not None:
        given.record.write_text(
            "# Fuzzing that is led by coverage\n\n"
            f"`python tests/fuzzing/guided.py --seconds {given.seconds}`: each parser read\n"
            "changes of the sound file for so long, and as long changes of every file that had\n"
            "led to new branches of phiquant's own code. A finding is another exception than a\n"
            "sentence, or a reading of more than 20 s.\n\n"
            f"{text}\n",
            encoding="utf-8",
        )
    return int(any(way.finding for ways in reached.values() for way in ways))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        fuzz_inside(sys.argv[2], sys.argv[4:], led=sys.argv[3] == "--led")
    else:
        sys.exit(main())
