"""The runtimes that devices have, by name. Data: data/engines.toml, each with its source."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from phiquant.devices.device import Engine
from phiquant.devices.reading import read_engines, read_toml

DATA = Path(__file__).parent / "data"


@cache
def engines() -> Mapping[str, Engine]:
    """The shipped engines, by name."""
    return read_engines(read_toml(DATA / "engines.toml"), "engines.toml")
