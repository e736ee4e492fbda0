"""llama.cpp's C API through whichever Python package brings it.

| package | what it brings | where it is looked for |
| --- | --- | --- |
| xllamacpp | an extension module that exports the API: Linux (x86-64, Arm), macOS | first |
| llama-cpp-py-sync | a DLL; xllamacpp's extension for Windows exports nothing | second |
| llama-cpp-python | a library that pip compiles, and its own declarations of the API | last |

The first two are prebuilt and bring nothing that Python could read about the API, so phiquant
declares what it calls itself (`shared_library.py`). Everything is called on `Library.c`.

llama.cpp logs to stderr unless told otherwise. The log is one per process; it is silenced when
the library is first used, and lines of the level "error" are kept for messages.
"""
# ruff: noqa: ANN401 (what crosses the border are ctypes' untyped pointers)

import ctypes
import platform
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phiquant.errors import MissingDependency, RequestError
from phiquant.quantization.grid import Floats
from phiquant.targets.gguf.error_log import ErrorLog
from phiquant.targets.gguf.llama_cpp_python import LlamaCppPython
from phiquant.targets.gguf.shared_library import SharedLibrary


class Library(Protocol):
    """One package's llama.cpp. A NULL pointer is false."""

    @property
    def c(self) -> Any:
        """The functions of llama.h, by their names."""

    @property
    def name(self) -> str:
        """The runtime's name and version, for reports."""

    @property
    def log(self) -> ErrorLog:
        """Errors that llama.cpp reported."""

    def context_parameters(self, **settings: int) -> Any:
        """llama.cpp's defaults for a context, with `settings` by the names of llama.h."""


def token_pointer(array: npt.NDArray[np.int32]) -> Any:
    """A `llama_token *` to `array`, which must outlive the call."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def floats_at(pointer: Any, count: int) -> Floats:
    """The `count` floats at a returned pointer, not copied."""
    return np.ctypeslib.as_array(pointer, (count,))


LOADERS: tuple[Callable[[], Library], ...] = (
    partial(SharedLibrary, "xllamacpp", "2026.10.11549", "xllamacpp", "xllamacpp*.so"),
    partial(SharedLibrary, "llama-cpp-py-sync", "0.11739", "llama_cpp_py_sync", "llama.dll"),
    LlamaCppPython,
)


@cache
def library() -> Library:
    """The installed llama.cpp, initialised and silent.

    Raises MissingDependency if no package brings it, RequestError if those that do are of no use.
    """
    refusals = []
    for load in LOADERS:
        try:
            loaded = load()
        except ImportError:
            continue
        except RequestError as error:
            refusals.append(str(error))
            continue
        loaded.c.llama_backend_init()
        return loaded
    if refusals:
        raise RequestError("; or: ".join(refusals))
    raise MissingDependency(
        package_for(sys.platform, platform.machine()), "running a GGUF artifact"
    )


def package_for(system: str, machine: str) -> str:
    """The package that brings llama.cpp to such a machine, prebuilt where that exists."""
    if system != "win32":
        return "xllamacpp"
    return "llama-cpp-py-sync" if machine == "AMD64" else "llama-cpp-python"
