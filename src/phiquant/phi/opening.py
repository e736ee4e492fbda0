"""A model as it is named: its checkpoint, and the adapter over it."""

import os

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.lora.adapted import WANTED, adapted
from phiquant.phi.source import Source, locate


def open_model(source: Source, adapter: str | os.PathLike[str] | None = None) -> Checkpoint:
    """The checkpoint at `source`, with the adapter that `adapter` names over it, a directory or a
    model's name on the hub. Raises ConfigError, CheckpointError or InputError.
    """
    checkpoint = Checkpoint.open(source.directory, source.name)
    return checkpoint if adapter is None else adapted(checkpoint, locate(adapter, wanted=WANTED))
