"""Tiny checkpoints as GGUF files, for tests of the file and of llama.cpp on it."""

from pathlib import Path

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from phiquant.recipe import Recipe
from phiquant.targets.gguf import TARGET
from tiny_models import tiny_config, tiny_weights, write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer


def tiny_checkpoint(directory, kind="bpe", **changes):
    """A checkpoint with a tokenizer, whose config names the tokenizer's special tokens."""
    vocabulary = changes.get("vocab_size", 512)
    tiny = write_tiny_tokenizer(Path(directory), vocabulary, kind)
    ids = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    write_tiny_checkpoint(directory, **(ids | changes))
    return Checkpoint.open(Path(directory))


def write_gguf(checkpoint, directory, **recipe):
    """Quantize `checkpoint` into `directory` as the pipeline does; returns the plan."""
    wanted = Recipe("gguf", **recipe)
    plan = TARGET.plan(checkpoint.architecture, survey(checkpoint), wanted.form)
    Path(directory).mkdir()
    with TARGET.writer(plan, checkpoint, wanted.form, Path(directory)) as writer:
        for row in plan.rows:
            if row.source is None:
                continue
            step = max(1, row.shape[0] // 3) if len(row.shape) > 1 else row.shape[0]
            for first in range(0, row.shape[0], step):
                weights = checkpoint.weight(row.source, first, first + step)
                parts = TARGET.grids[row.grid].encode(weights.reshape(-1, row.shape[-1]))
                writer.write(row, first, parts)
    return plan


__all__ = ["tiny_checkpoint", "tiny_config", "tiny_weights", "write_gguf"]
