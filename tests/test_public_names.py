"""What `phiquant` offers, and that offering it costs nothing."""

import subprocess
import sys

import pytest

import phiquant


def test_every_public_name_is_there():
    for name in phiquant.__all__:
        assert getattr(phiquant, name).__name__ == name


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        phiquant.quantise  # noqa: B018


def test_importing_phiquant_imports_nothing_else():
    program = "import phiquant, sys; print('numpy' in sys.modules, 'rich' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False", "False"]
