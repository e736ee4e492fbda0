"""llama.cpp's C API through whichever Python package brings it.

Two packages expose the functions and structs of llama.h under their own names:
`llama-cpp-py-sync` through cffi, with prebuilt libraries, and `llama-cpp-python` through ctypes,
compiled on installation. They differ only in how memory crosses the border, and that is what a
`Library` hides; everything else is called on `Library.c`. The prebuilt library needs glibc 2.38
on Linux; where it does not load, the other package is tried.

llama.cpp logs to stderr unless told otherwise. The log is one per process; it is silenced when
the library is first used, and lines of the level "error" are kept for messages.
"""
# ruff: noqa: ANN401 (what crosses the border are the bindings' own untyped pointers)

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phiquant.errors import MissingDependency, RequestError
from phiquant.quantization.grid import Floats

_CALLBACKS: list[Any] = []
"""llama.cpp calls the log callback for as long as the process lives, so none is ever freed."""

ERROR = 4
"""llama.cpp's GGML_LOG_LEVEL_ERROR."""
CONTINUED = 5
"""llama.cpp's GGML_LOG_LEVEL_CONT: more of the line before."""


class ErrorLog:
    """What llama.cpp logged as errors since the last `clear`.

    The first line names the cause; those after it tell which callers gave up in turn.
    """

    def __init__(self) -> None:
        self._first = ""
        self._open = False

    def take(self, level: int, text: bytes) -> None:
        """Called by llama.cpp for every piece of log; a piece may continue the line before."""
        if level != CONTINUED:
            self._open = level == ERROR and not self._first
        if self._open:
            self._first += text.decode("utf-8", errors="replace")

    def clear(self) -> None:
        """Forget what was logged."""
        self._first = ""

    @property
    def cause(self) -> str:
        """The first error's line."""
        return self._first.strip() or "it logged no reason"


class Library(Protocol):
    """One binding of llama.cpp. A NULL pointer is false in both."""

    @property
    def c(self) -> Any:
        """The functions of llama.h."""

    @property
    def name(self) -> str:
        """The runtime's name and version, for reports."""

    @property
    def log(self) -> ErrorLog:
        """Errors that llama.cpp reported."""

    def tokens(self, array: npt.NDArray[np.int32]) -> Any:
        """A `llama_token *` to `array`, which must outlive the call."""

    def buffer(self, size: int) -> Any:
        """A new `char[size]`."""

    def contents(self, buffer: Any, size: int) -> bytes:
        """The first `size` bytes of a buffer."""

    def floats(self, pointer: Any, count: int) -> Floats:
        """The `count` floats at a returned pointer, not copied."""


@cache
def library() -> Library:
    """The installed llama.cpp, initialised and silent.

    Raises MissingDependency if there is none, RequestError if one is there but does not load.
    """
    failures = []
    loaders: tuple[tuple[str, Callable[[], Library]], ...] = (
        ("llama-cpp-py-sync", CffiLibrary),
        ("llama-cpp-python", CtypesLibrary),
    )
    for package, load in loaders:
        try:
            found = load()
        except ImportError:
            continue
        except (RuntimeError, OSError) as error:
            failures.append(f"{package} does not load: {error}")
            continue
        found.c.llama_backend_init()
        return found
    if failures:
        raise RequestError(
            f"no usable llama.cpp here ({'; '.join(failures)}); "
            "install one that is compiled on this machine: pip install llama-cpp-python"
        )
    raise MissingDependency("llama-cpp-py-sync", "gguf", "running a GGUF artifact")


class CffiLibrary:
    """llama.cpp as `llama-cpp-py-sync` binds it."""

    def __init__(self) -> None:
        from llama_cpp_py_sync import __llama_cpp_tag__
        from llama_cpp_py_sync._cffi_bindings import _find_library, get_ffi, get_lib

        self.c = get_lib()
        self.name = f"llama.cpp {__llama_cpp_tag__}"
        self.log = ErrorLog()
        # The package leaves one function out; it is declared beside the others, not among them.
        self._ffi = type(get_ffi())()
        self._ffi.include(get_ffi())
        self._ffi.cdef("void llama_log_set(ggml_log_callback log_callback, void * user_data);")
        callback = self._ffi.callback("ggml_log_callback", self._take)
        _CALLBACKS.append(callback)
        silent = self._ffi.dlopen(_find_library())  # the same library: it is loaded once
        silent.llama_log_set(callback, self._ffi.NULL)

    def _take(self, level: int, text: Any, user: Any) -> None:
        self.log.take(level, self._ffi.string(text))

    def tokens(self, array: npt.NDArray[np.int32]) -> Any:
        return self._ffi.cast("llama_token *", array.ctypes.data)

    def buffer(self, size: int) -> Any:
        return self._ffi.new("char[]", size)

    def contents(self, buffer: Any, size: int) -> bytes:
        return bytes(self._ffi.buffer(buffer, size))

    def floats(self, pointer: Any, count: int) -> Floats:
        return np.frombuffer(self._ffi.buffer(pointer, 4 * count), np.float32)


class CtypesLibrary:
    """llama.cpp as `llama-cpp-python` binds it."""

    def __init__(self) -> None:
        from llama_cpp import __version__, llama_cpp

        self.c = llama_cpp
        # Older releases cannot tell llama.cpp's own version.
        own = getattr(llama_cpp, "llama_version", lambda: b"")().decode()
        self.name = f"llama.cpp {own} (llama-cpp-python {__version__})".replace("  ", " ")
        self.log = ErrorLog()
        callback = llama_cpp.llama_log_callback(self._take)
        _CALLBACKS.append(callback)
        llama_cpp.llama_log_set(callback, None)

    def _take(self, level: int, text: bytes, user: Any) -> None:
        self.log.take(level, text)

    def tokens(self, array: npt.NDArray[np.int32]) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))

    def buffer(self, size: int) -> Any:
        return ctypes.create_string_buffer(size)

    def contents(self, buffer: Any, size: int) -> bytes:
        return bytes(buffer.raw[:size])

    def floats(self, pointer: Any, count: int) -> Floats:
        return np.ctypeslib.as_array(pointer, (count,))
