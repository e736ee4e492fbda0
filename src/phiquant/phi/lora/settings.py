"""`adapter_config.json`: by how much an adapter's products count, and what it may not be.

Source: LoraConfig and `get_pattern_key` of PEFT. A field that is not known here and says anything
is refused by name: it belongs to a method that does something else than add a product.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phiquant.errors import ConfigError
from phiquant.host import foreign
from phiquant.host.shown import shown
from phiquant.phi.lora.names import CONFIG, MERGE

WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "bias",  # Phi has none; an adapter that brings some is told by its tensors
        "ensure_weight_tying",
        "eva_config",
        "base_model_name_or_path",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""Fields that say how an adapter was trained or where it came from; what it changes is told by its
tensors."""
READ = frozenset(
    {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
)
PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
"""`init_lora_weights` that leave the base as it is; others begin by changing it."""
NAME = re.compile(r"\^?[\w.]+")
"""A key of a pattern that is a module's name, or the end of one; PEFT takes any regular
expression, of which some never end."""
MOST_PATTERNS = 100_000


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What the scale of a product follows from."""

    rank: int
    alpha: float
    rank_stabilised: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def scale(self, module: str, rank: int) -> float:
        """The factor of the product of a module that has this rank. Raises ConfigError if it is
        not the one that the settings give the module.
        """
        expected = _matching(self.ranks, module, self.rank)
        if rank != expected:
            raise ConfigError(
                f"the adapter's matrices for {module} have rank {rank}, and {CONFIG} gives it "
                f"{expected}; both have to be those of one adapter"
            )
        alpha: float = _matching(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def as_json(self) -> dict[str, Any]:
        """The settings as they are recorded."""
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "rank_stabilised": self.rank_stabilised,
            "ranks": dict(self.ranks),
            "alphas": dict(self.alphas),
        }


def _matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:  # noqa: ANN401
    """What the first pattern says whose key is the module's name, or its end after a point."""
    for key, value in patterns.items():
        name = key.removeprefix("^")
        if module == name or (name == key and module.endswith(f".{name}")):
            return value
    return default


def read_settings(directory: Path) -> LoraSettings:
    """The settings of the adapter in `directory`.

    Raises ConfigError if there are none, if they are another method's than LoRA, or malformed.
    """
    path = directory / CONFIG
    if not foreign.present(path):
        raise ConfigError(
            f"expected an adapter with an {CONFIG} in {directory}, found none; give the directory "
            "that PEFT's save_pretrained wrote"
        )
    said = foreign.read_object(path, foreign.CONFIG, directory)
    method = said.get("peft_type")
    if method != "LORA":
        raise ConfigError(f"expected an adapter of the type LORA, found {shown(method)}; {MERGE}")
    unknown = sorted(
        key for key, value in said.items() if value and key not in READ | WITHOUT_EFFECT
    )
    if unknown:
        raise ConfigError(
            f"{CONFIG} sets {unknown[0][:60]}, which is more than a low-rank product; {MERGE}"
        )
    start = said.get("init_lora_weights")
    if not any(start is plain or start == plain for plain in PLAIN_STARTS):
        raise ConfigError(
            f"an adapter that began as {shown(start)} changed its base model; {MERGE}"
        )
    return LoraSettings(
        _rank(said.get("r"), "r"),
        _number(said.get("lora_alpha"), "lora_alpha"),
        bool(said.get("use_rslora", False)),
        {key: _rank(value, "rank_pattern") for key, value in _patterns(said, "rank_pattern")},
        {key: _number(value, "alpha_pattern") for key, value in _patterns(said, "alpha_pattern")},
    )


def _patterns(said: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    patterns = said.get(key) or {}
    if not isinstance(patterns, dict) or len(patterns) > MOST_PATTERNS:
        raise ConfigError(f"{key} in {CONFIG} should be an object, found {shown(patterns)}")
    for name in patterns:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{key} in {CONFIG} has the expression {shown(name)}; names of modules and ends of "
                f"them are covered: {MERGE}"
            )
    return list(patterns.items())


def _rank(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 16:
        raise ConfigError(f"{key} in {CONFIG} should be a positive integer, found {shown(value)}")
    return value


def _number(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
        raise ConfigError(f"{key} in {CONFIG} should be a number, found {shown(value)}")
    return float(value)
