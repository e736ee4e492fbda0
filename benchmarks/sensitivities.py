"""How much of what 4 bits cost falls to each kind of matrix of the demo model.

    python benchmarks/sensitivities.py [--checkpoints DIRECTORY]

Each matrix alone is rounded to 4 bits in groups of 32, as `phiquant quantize --max-size` measures
it (`phiquant.calibration.analysis`), over 4 windows of 128 tokens of the calibration text. Writes
`results/sensitivities.md`.
"""

import argparse
from pathlib import Path
from statistics import median

from demo_models import MODELS, demo_model
from machine import listed, our_versions
from tables import Table, page

from phiquant.calibration.analysis import WINDOW, Analysis, analyse, analysis_windows
from phiquant.calibration.text import shipped_sample
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network.parts import Part

ROOT = Path(__file__).resolve().parent.parent
KINDS = Table(
    ("matrices", "weights:", "nats, all of them:", "share:", "nats a million weights, median:")
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "accuracy")
    parser.add_argument("--checkpoints", type=Path, help="where the demo models lie already")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    parts = ["# Sensitivities of the demo model", "Each matrix alone at 4 bits in groups of 32."]
    for model in MODELS:
        checkpoint = demo_model(model, options.work, options.checkpoints)
        parts += [f"## {model.capitalize()}", table(Checkpoint.open(checkpoint))]
    parts.append(f"Ours: {listed(our_versions())}.")
    text = page(parts)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "sensitivities.md").write_text(text)
    print(text)


def table(checkpoint: Checkpoint) -> str:
    """A line a kind of matrix, the whole model's share of each."""
    architecture = checkpoint.architecture
    sample = shipped_sample(checkpoint.tokenizer, analysis_windows(architecture), WINDOW)
    analysis = analyse(checkpoint, sample.tokens, sensitivities=True)
    kinds: dict[str, list[Part]] = {}
    for part in architecture.network.matrices:
        kinds.setdefault(part.word, []).append(part)
    total = sum(one.divergence for one in analysis.sensitivities.values())
    return KINDS.text(cells(word, parts, analysis, total) for word, parts in kinds.items())


def cells(word: str, parts: list[Part], analysis: Analysis, total: float) -> tuple[str, ...]:
    weights = [part.rows * part.weight.shape[1] for part in parts]
    nats = [analysis.sensitivities[part.name].divergence for part in parts]
    each = median(one / count * 1e6 for one, count in zip(nats, weights, strict=True))
    share = f"{sum(nats) / total:.1%}"
    return word, f"{sum(weights) / 1e6:.1f} M", f"{sum(nats):.4f}", share, f"{each:.5f}"


if __name__ == "__main__":
    main()
