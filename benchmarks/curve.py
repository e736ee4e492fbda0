"""The curve of divergence over size, drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scores import MEGABYTE, Subject


def plot(curves: Mapping[str, Sequence[Subject]], path: Path) -> bool:
    """Draw each curve into the SVG at `path`; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "accuracy"  # the same ids every time
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for title, points in curves.items():
        losses = [point.loss for point in points if point.loss]
        sizes = [loss.nbytes / MEGABYTE for loss in losses]
        means = [loss.mean for loss in losses]
        errors = [loss.mean_error for loss in losses]
        axes.errorbar(sizes, means, errors, marker="o", markersize=4, capsize=2, label=title)
    axes.set_yscale("log")
    axes.set_xlabel("tensor data, MB")
    axes.set_ylabel("mean KL divergence, nats a token")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
