"""The published models of the family, known by their dimensions: sizes without a network.

The table is family.toml. Factors of LongRoPE are placeholders there (sizes depend only on their
number), so an outline from here is for planning and never for making an artifact.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phiquant.phi.architecture import ARCHITECTURE
from phiquant.phi.config import read_architecture
from phiquant.phi.outline import Outline, assumed_survey, read_outline
from phiquant.phi.source import Source, locate

TABLE = Path(__file__).parent / "family.toml"


@cache
def family() -> Mapping[str, Outline]:
    """Every model of the table, by its hub id's last part."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {entry["hub"].rpartition("/")[2]: _outline(entry) for entry in document.values()}


def known_model(word: str) -> Outline | None:
    """The model that `word` names: a hub id, or its last part, in whatever case."""
    wanted = word.removeprefix("microsoft/").lower()
    return next((one for name, one in family().items() if name.lower() == wanted), None)


def find_outline(model: str | os.PathLike[str], revision: str | None = None) -> Outline:
    """The outline of a directory, of a published Phi, or of a hub id (one small file fetched)."""
    word = os.fspath(model)
    known = known_model(word)
    if known is not None and not Path(word).exists():
        return known
    return read_outline(locate(word, revision, wanted=("config.json",)))


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
