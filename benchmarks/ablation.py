"""What each step of `--quality best` gains: the demo model rounded with that step changed.

    python benchmarks/ablation.py [--model untied] [--checkpoints DIRECTORY]

Every row is a calibrated run of its own (`phiquant.job.layerwise`) with one thing changed in its
`Method`, to GGUF's mixture Q4_0; its mean KL divergence is that of the reference forward over
the decoded weights, on the held-out text of `accuracy.py`. The sample is shorter than the default:
figures compare with each other, not with those of `accuracy.py`. Writes `results/ablation.md`,
after every row anew.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from demo_models import MODELS, demo_model
from fidelity import WINDOW, Loss, loss_of_weights, truth_of
from machine import listed, our_versions
from tables import Table, line, page

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.journal import Journal
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.job.layerwise import Calibration, Wanted, calibrate
from phiquant.job.order import order
from phiquant.job.prospect import Prospect, prepare
from phiquant.job.rounding import wanted_for
from phiquant.phi.architecture import Architecture
from phiquant.phi.weights import Floats, Resident
from phiquant.progress import ignore
from phiquant.quantization.feedback.rounder import Method
from phiquant.quantization.rescaling import Rescaled
from phiquant.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Recipe("gguf", type="Q4_0", quality="best")
ALL = Method()
METHODS = {
    "as `best` does it": ALL,
    "channels as the checkpoint scales them": replace(ALL, rescaling=False),
    "rows alone: outputs not weighed, scales improved instead": replace(ALL, output_damping=None),
    "second moments as found": replace(ALL, shrinkage=0.0),
    "fitted levels only, none finer or wider": replace(ALL, multiples=()),
    "codes and scales as the feedback leaves them": replace(ALL, codes=False, parameters=False),
    "shifted inputs: not corrected for": replace(ALL, shift=0.0),
    "shifted inputs: corrected for in full": replace(ALL, shift=1.0),
    "residual stream behind: not made up for": replace(ALL, behind=0.0),
    "residual stream behind: made up for in full": replace(ALL, behind=1.0),
    "a third of the damping": replace(ALL, damping=ALL.damping / 3),
}
STEPS = Table(("", "nats a token:", "beside `best`:", "top-1:"))


@dataclass(frozen=True, slots=True)
class Rounded:
    """The network that a run rounded, as its journal has it; norms are those that go with it."""

    network: Rescaled
    wanted: Wanted
    journal: Journal

    @property
    def architecture(self) -> Architecture:
        return self.network.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        rows = self.wanted.rows[name]
        if rows[0].role is not None and rows[0].role.is_norm:
            return self.network.weight(name, first, last)
        sizes = []
        for row in rows:
            grid = self.wanted.grid(row)
            parts = self.journal.parts(self.wanted.name, row.output, grid.layout(row.shape))
            sizes.append(grid.decode(parts, row.shape[1]))
        return np.concatenate(sizes)[first:last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=MODELS, default="untied")
    parser.add_argument("--sequences", type=int, default=16, help="of 512 tokens")
    parser.add_argument("--windows", type=int, default=24, help=f"of {WINDOW} tokens")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "accuracy")
    parser.add_argument("--checkpoints", type=Path, help="where the demo models lie already")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    text = CalibrationText(sequences=options.sequences)
    sizes = f"{text.sequences} x {text.length} tokens calibrate, {options.windows} x {WINDOW} judge"
    path = demo_model(options.model, options.work, options.checkpoints)
    prospect = prepare(path, order(RECIPE, text))
    truth = truth_of(path, options.windows)
    parts = [
        "# What each step of `best` gains",
        f"GGUF Q4_0, {options.model} demo model; {sizes}.",
        f"Ours: {listed(our_versions())}.",
    ]
    rows = []
    for cells in steps(prospect, truth, options.work):
        print(line(cells), flush=True)
        rows.append(cells)
        (options.results / "ablation.md").write_text(page([*parts, STEPS.text(rows)]))


def steps(prospect: Prospect, truth: ReferenceFigures, work: Path) -> Iterator[tuple[str, ...]]:
    """The cells of a row a method; the first is what the others are compared with."""
    best = None
    for name, method in METHODS.items():
        losses = loss_with(method, prospect, truth, work)
        best = best or losses
        mean = f"{losses.mean:.4f} ± {losses.mean_error:.4f}"
        yield name, mean, f"{losses.mean / best.mean:.3f}", f"{losses.top1:.1%}"


def loss_with(method: Method, prospect: Prospect, truth: ReferenceFigures, work: Path) -> Loss:
    """What the model loses that is rounded with `method`."""
    (plan,) = prospect.plans
    sample, checkpoint = prospect.evidence.sample, prospect.checkpoint
    assert sample is not None
    assert checkpoint is not None
    wanted = wanted_for(RECIPE, plan)
    over = Calibration(np.stack(sample.tokens), method)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as directory:
        journal = Journal(Path(directory), {})
        network = calibrate(checkpoint, [wanted], over, journal, ignore)
        rounded = Resident(Rounded(network, wanted, journal))
        return loss_of_weights(rounded, plan.nbytes, "Q4_0", truth)


if __name__ == "__main__":
    main()
