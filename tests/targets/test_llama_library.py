"""The packages that bring llama.cpp: which is taken, and what is refused in which words."""

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gguf_models import tiny_checkpoint, write_gguf
from packaging.requirements import Requirement

import llama_h
from command_line import assert_refused, call, tiny_model
from phiquant.errors import ArtifactError
from phiquant.phi.reference import Reference
from phiquant.targets.gguf import TARGET, context_settings
from phiquant.targets.gguf.error_log import ErrorLog
from phiquant.targets.gguf.library import LOADERS, library, package_for
from phiquant.targets.gguf.llama_cpp_python import LlamaCppPython
from phiquant.targets.isolation import isolated

ROOT = Path(__file__).parents[2]
PACKAGES = ("xllamacpp", "llama_cpp_py_sync", "llama_cpp")
EXTENSION = next(llama_h.files(llama_h.FILES[:1]), None)

needs_xllamacpp = pytest.mark.skipif(EXTENSION is None, reason="needs the package xllamacpp")


@pytest.fixture
def other_llama_cpp():
    """A test that binds llama.cpp by itself takes over the log, so the next one binds anew."""
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.fixture
def nothing_installed(monkeypatch, other_llama_cpp):
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)


def installed(monkeypatch, directory, package, file, content):
    """A package whose only file is `file`: bytes, or a link to a path."""
    folder = directory / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    if isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        (folder / file).symlink_to(content)
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(directory)


def agrees_with_the_reference(directory):
    checkpoint = tiny_checkpoint(directory / "tiny")
    write_gguf(checkpoint, directory / "out", precision="fp32")
    tokens = np.random.default_rng(3).integers(0, 500, 30).astype(np.int32)
    with TARGET.runner(directory / "out") as runner:
        assert np.abs(runner.logits(tokens) - Reference(checkpoint).logits(tokens)).max() < 1e-3
        assert runner.text(np.array(runner.tokenize("The dog"), np.int32)) == "The dog"
        name = runner.runtime
    directory.joinpath("out/tiny-F32.gguf").write_bytes(b"GGUF")
    with pytest.raises(ArtifactError, match="refuses"):
        TARGET.runner(directory / "out")
    return name


@needs_xllamacpp
def test_xllamacpp_comes_first(tmp_path, other_llama_cpp):
    name = agrees_with_the_reference(tmp_path)
    assert name.startswith("llama.cpp ")
    assert name.endswith(f" (xllamacpp {version('xllamacpp')})")


@needs_xllamacpp
def test_on_windows_the_library_of_llama_cpp_py_sync(tmp_path, monkeypatch, nothing_installed):
    """Its llama.dll stands beside an xllamacpp that has no library to load."""
    installed(monkeypatch, tmp_path, "xllamacpp", "xllamacpp.pyd", b"exports PyInit alone")
    installed(monkeypatch, tmp_path, "llama_cpp_py_sync", "llama.dll", EXTENSION)
    assert "(llama-cpp-py-sync" in agrees_with_the_reference(tmp_path)


def compiled(monkeypatch, release, functions):
    """A package `llama_cpp` that has these functions."""
    package = ModuleType("llama_cpp")
    package.__version__, package.llama_cpp = release, functions
    monkeypatch.setitem(sys.modules, "llama_cpp", package)


@needs_xllamacpp
def test_llama_cpp_python_with_its_own_declarations(tmp_path, monkeypatch, nothing_installed):
    """A module of the same functions and structs, declared field by field."""
    compiled(monkeypatch, "0.3.99", llama_h.declared(EXTENSION))
    assert "(llama-cpp-python 0.3.99)" in agrees_with_the_reference(tmp_path)
    assert isinstance(library(), LlamaCppPython)


@pytest.fixture(scope="module")
def verification(tmp_path_factory):
    """The words of a command that runs a GGUF artifact."""
    directory = tmp_path_factory.mktemp("verified")
    model = tiny_model(directory / "model")
    assert call("quantize", model, "--to", "gguf", "-o", directory / "out").code == 0
    return "verify", directory / "out", "--against", model


@pytest.fixture
def words(verification, monkeypatch):
    """The same, and the artifact is run in this process, where packages are exchanged."""
    monkeypatch.setattr(isolated, "is_listed", lambda target: False)
    return verification


def test_without_any_package(words, nothing_installed):
    here = package_for(sys.platform, "AMD64")
    assert_refused(call(*words), 2, "running a GGUF artifact", f'pip install "{here}"')


def test_a_library_that_does_not_load(words, tmp_path, monkeypatch, nothing_installed):
    installed(monkeypatch, tmp_path, "xllamacpp", "xllamacpp.abi3.so", b"no library")
    assert_refused(call(*words), 2, "xllamacpp", "does not load", "libgomp1")


def test_a_library_without_the_functions(words, tmp_path, monkeypatch, nothing_installed):
    import _ctypes

    other = Path(_ctypes.__file__)
    installed(monkeypatch, tmp_path, "xllamacpp", "xllamacpp.abi3.so", other)
    assert_refused(call(*words), 2, "no function llama_backend_init", "pip install xllamacpp==")


@needs_xllamacpp
@pytest.mark.parametrize("group", ["START", "MIDDLE", "CACHE"])
def test_a_library_with_other_structs(words, monkeypatch, other_llama_cpp, group):
    """Refused in words, before anything is written into a struct."""
    monkeypatch.setattr(context_settings, group, b"not so")
    for package in PACKAGES[1:]:
        monkeypatch.setitem(sys.modules, package, None)
    assert_refused(call(*words), 2, "xllamacpp", "not one that phiquant knows", "pip install")


def test_llama_cpp_python_that_is_too_old(words, monkeypatch, nothing_installed):
    compiled(monkeypatch, "0.2.1", ModuleType("llama_cpp.llama_cpp"))
    assert_refused(call(*words), 2, "llama-cpp-python 0.2.1", "--upgrade llama-cpp-python")


def test_all_refusals_are_told(words, tmp_path, monkeypatch, nothing_installed):
    installed(monkeypatch, tmp_path, "xllamacpp", "xllamacpp.abi3.so", b"no library")
    compiled(monkeypatch, "0.2.1", ModuleType("llama_cpp.llama_cpp"))
    assert_refused(call(*words), 2, "does not load", "; or: ", "llama-cpp-python 0.2.1")


@needs_xllamacpp
def test_a_package_that_is_refused_gives_way(tmp_path, monkeypatch, nothing_installed):
    installed(monkeypatch, tmp_path, "xllamacpp", "xllamacpp.abi3.so", b"no library")
    compiled(monkeypatch, "0.3.99", llama_h.declared(EXTENSION))
    assert "(llama-cpp-python 0.3.99)" in agrees_with_the_reference(tmp_path)


@pytest.mark.parametrize(
    ("system", "machine", "package"),
    [
        ("linux", "x86_64", "xllamacpp"),
        ("linux", "aarch64", "xllamacpp"),
        ("darwin", "arm64", "xllamacpp"),
        ("darwin", "x86_64", "xllamacpp"),
        ("win32", "AMD64", "llama-cpp-py-sync"),
        ("win32", "ARM64", "llama-cpp-python"),
    ],
)
def test_the_extra_brings_the_package_that_messages_name(system, machine, package):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    where = {"sys_platform": system, "platform_machine": machine}
    wanted = map(Requirement, project["project"]["optional-dependencies"]["gguf"])
    names = [one.name for one in wanted if one.marker is None or one.marker.evaluate(where)]
    assert names == ["gguf", package]
    assert package_for(system, machine) == package


def test_the_versions_that_messages_name_are_those_of_the_tests():
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    for load in LOADERS[:2]:
        package, tested = load.args[:2]
        assert pinned[package] == tested


def test_the_first_error_is_kept_with_its_continuation():
    log = ErrorLog()
    assert log.cause == "it logged no reason"
    pieces = (2, b"info\n"), (4, b"missing "), (5, b"tensor\n"), (3, b"x\n"), (5, b"y"), (4, b"z")
    for level, text in pieces:
        log.take(level, text)
    assert log.cause == "missing tensor"
    log.clear()
    assert log.cause == "it logged no reason"
