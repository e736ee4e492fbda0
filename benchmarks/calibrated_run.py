"""One calibrated run in this process, timed against the matrix products that it needs.

    python calibrated_run.py CHECKPOINT OUTPUT [--to gguf] [--size 128x512]

Prints one line of JSON. `calibration.py` runs it as a process of its own, to see its memory.

The rate of products is that of a large float32 product (4096 x 4096 x 4096), measured before and
after the run: what it could do in between lies between the two, and their mean is taken.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from phiquant.cli.request import calibration_text
from phiquant.job.making import quantize
from phiquant.progress import Progress
from phiquant.recipe import Recipe

SIZE = 4096
TRIALS = 5


@dataclass(slots=True)
class Listener:
    """Notes what the run announced, and when its stages began and ended."""

    announced: float | None = None
    stage: str = ""
    """The stage that the announcement was for."""
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        self.began.setdefault(progress.stage, now)
        self.ended[progress.stage] = now
        if progress.seconds is not None and self.announced is None:
            self.announced, self.stage = progress.seconds, progress.stage
            self.began[progress.stage] = now


def product_rate() -> tuple[float, float]:
    """Operations a second of wall time, and of processor time, of one large float32 product."""
    random = np.random.default_rng(0)
    left, right = (random.random((SIZE, SIZE), np.float32) for _ in range(2))
    out = np.empty_like(left)
    walls, processors = [], []
    for _ in range(TRIALS):
        wall, processor = time.perf_counter(), processor_time()
        np.matmul(left, right, out=out)
        walls.append(time.perf_counter() - wall)
        processors.append(processor_time() - processor)
    return 2 * SIZE**3 / median(walls[1:]), 2 * SIZE**3 / median(processors[1:])


def processor_time() -> float:
    used = os.times()
    return used.user + used.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--to", default="gguf")
    parser.add_argument("--size", default="128x512", help="sequences x tokens")
    options = parser.parse_args()
    before = product_rate()
    listener = Listener()
    recipe = Recipe(options.to, "int4", quality="best")
    text = calibration_text(None, options.size)
    wall, processor = time.perf_counter(), processor_time()
    quantize(str(options.checkpoint), (recipe,), options.output, listener, text=text)
    whole = (time.perf_counter() - wall, processor_time() - processor)
    after = product_rate()
    stages = {name: listener.ended[name] - began for name, began in listener.began.items()}
    document = {
        "wall_s": whole[0],
        "processor_s": whole[1],
        "rate": [before[0], after[0]],
        "rate_per_processor_s": [before[1], after[1]],
        "announced_s": listener.announced,
        "announced_stage_s": stages.get(listener.stage),
        "stages_s": stages,
    }
    json.dump(document, sys.stdout)
    print()


if __name__ == "__main__":
    main()
