"""The published models of the family, known by their dimensions: sizes without a network.

The table is family.toml. Factors of LongRoPE are placeholders there (sizes depend only on their
number), so an outline from here is for planning and never for making an artifact.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phiquant.phi.architecture import ARCHITECTURE
from phiquant.phi.config import read_architecture
from phiquant.phi.outline import Outline, assumed_survey
from phiquant.phi.published import published, published_id
from phiquant.phi.source import Source


@cache
def family() -> Mapping[str, Outline]:
    """Every model of the table, by its hub id's last part."""
    return {entry["hub"].rpartition("/")[2]: _outline(entry) for entry in published()}


def known_model(word: str) -> Outline | None:
    """The model that `word` names: a hub id, or its last part, in whatever case."""
    hub_id = published_id(word)
    return None if hub_id is None else family()[hub_id.rpartition("/")[2]]


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
