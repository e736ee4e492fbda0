"""The published models of the family, known by their dimensions: sizes without a network.

The table is family.toml. Factors of LongRoPE are placeholders there (sizes depend only on their
number), so an outline from here is for planning and never for making an artifact.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phiquant.phi.classes.phi3 import ARCHITECTURE
from phiquant.phi.config import read_architecture
from phiquant.phi.model_name import read_model_name
from phiquant.phi.outline import Outline, assumed_survey, read_outline
from phiquant.phi.published import published, published_id
from phiquant.phi.source import Source, locate


@cache
def family() -> Mapping[str, Outline]:
    """Every model of the table, by its hub id's last part."""
    return {entry["hub"].rpartition("/")[2]: _outline(entry) for entry in published()}


def known_model(word: str) -> Outline | None:
    """The model that `word` names: a hub id, or its last part, in whatever case."""
    hub_id = published_id(word)
    return None if hub_id is None else family()[hub_id.rpartition("/")[2]]


def find_outline(model: str | os.PathLike[str], revision: str | None = None) -> Outline:
    """The outline of a directory, of a published Phi, or of a model on the hub, of which one small
    file is fetched.
    """
    named = read_model_name(model, revision)
    if named.directory is None and named.hub_id is not None:
        known = known_model(named.hub_id)
        if known is not None:
            return known
    return read_outline(locate(model, revision, wanted=("config.json",)))


def _outline(entry: Mapping[str, Any]) -> Outline:
    config = {
        "architectures": [ARCHITECTURE],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        **{key: value for key, value in entry.items() if key not in ("hub", "parameters")},
    }
    if entry["max_position_embeddings"] > entry["original_max_position_embeddings"]:
        head = entry["hidden_size"] // entry["num_attention_heads"]
        count = int(head * entry.get("partial_rotary_factor", 1.0)) // 2
        config["rope_scaling"] = {
            "type": "longrope",
            "short_factor": [1.0] * count,
            "long_factor": [2.0] * count,
        }
    hub: str = entry["hub"]
    name = re.sub(r".*/", "", hub)
    architecture = read_architecture(config)
    return Outline(Source(Path(), name, hub), architecture, assumed_survey(architecture))
