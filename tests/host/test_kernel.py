"""Compiled kernels on disk: whoever compiles at the same time, each process loads its own.

A module that is loaded anew stands for another process: it has nothing but the files.
"""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest

from phiquant.targets.isolation.runtime_process import ENVIRONMENT

INNER = """
from phiquant.host.kernel import kernel, njit

FACTOR = 2

@njit(nogil=True, fastmath={"nsz", "nnan", "contract"})
def scaled(value):
    return value * FACTOR
"""
OUTER = """
from inner import kernel, scaled

@kernel(error_model="numpy")
def total(values):
    result = values[0] * 0
    for value in values:
        result += scaled(value)
    return result
"""
WHOLE = np.arange(5)
HALVES = np.arange(5) / 2


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the kernel `total` as a new process does."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")  # beside the modules
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "inner.py").write_text(INNER)
    (tmp_path / "outer.py").write_text(OUTER)

    def loaded():
        for name in ("inner", "outer"):
            specification = spec_from_file_location(name, tmp_path / f"{name}.py")
            module = module_from_spec(specification)
            monkeypatch.setitem(sys.modules, name, module)
            specification.loader.exec_module(module)
        return module.total

    return loaded


def files(directory):
    return sorted(path.name for path in directory.rglob("outer.total*.nb?"))


def test_a_kernel_is_compiled_once_for_all_processes(load, tmp_path):
    assert load()(WHOLE) == 20
    again = load()
    assert (again(WHOLE), again(HALVES)) == (20, 10)
    assert sum(again.stats.cache_hits.values()) == 1
    assert len(files(tmp_path)) == 2


def test_two_processes_that_compile_for_different_types_at_a_time(load, monkeypatch):
    """The second has its files in place before the first's code, and after the first has begun."""
    first, second = load(), load()
    replace, waiting = os.replace, []

    def held(source, target):
        if not waiting:
            waiting.append(None)
            second(HALVES)
        elif len(waiting) == 1 and str(target).endswith(".nbc"):
            waiting.append((source, target))
            return
        replace(source, target)

    monkeypatch.setattr(os, "replace", held)
    assert first(WHOLE) == 20
    monkeypatch.undo()
    replace(*waiting[1])
    assert load()(WHOLE) == 20
    assert load()(HALVES) == 10


@pytest.mark.parametrize("change", [("FACTOR = 2", "FACTOR = 3"), ("* FACTOR", "+ value * 2")])
def test_a_kernel_that_calls_a_changed_one_is_compiled_anew(load, tmp_path, change):
    assert load()(WHOLE) == 20
    before = files(tmp_path)
    (tmp_path / "inner.py").write_text(INNER.replace(*change))
    os.utime(tmp_path / "inner.py", (1, 1))
    changed = load()
    assert changed(WHOLE) == 30
    assert not changed.stats.cache_hits
    assert len(files(tmp_path)) == 1
    assert files(tmp_path) != before


def test_what_is_damaged_is_compiled_anew(load, tmp_path):
    load()(WHOLE)
    (file,) = tmp_path.rglob("outer.total*.nbc")
    for content in (b"", file.read_bytes()[:100], b"no pickle"):
        file.write_bytes(content)
        assert load()(WHOLE) == 20
    assert len(file.read_bytes()) > 1000


def test_a_process_that_only_runs_artifacts_loads_no_compiler():
    lines = [
        "import sys",
        "from phiquant.targets.table import targets",
        "assert len(targets()) >= 4 and 'numba' not in sys.modules",
    ]
    environ = os.environ | ENVIRONMENT
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, env=environ)
