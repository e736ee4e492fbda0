"""llama.cpp in a shared library that a package brings prebuilt, without declarations of its API.

The functions that phiquant calls are declared here, after llama.h. Structs cross the border by
value, and llama.h changes them; so they are blocks of bytes here, larger than any of them:

- A function that returns a struct of more than 16 bytes writes it where the caller says, and a
  larger place does no harm. (So it is on x86-64, 64-bit Arm and 64-bit Windows.)
- A function that takes one as its last argument reads as much of it as it knows.

The parameters of a model go back to llama.cpp as they came. In those of a context the fields that
are set are recognised first (`context_settings.py`), and so are the pointers of a batch. A build
that is not recognised, or lacks a function, is refused.
"""
# ruff: noqa: ANN401 (what crosses the border are ctypes' untyped pointers)

import ctypes
import struct
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from phiquant.errors import RequestError
from phiquant.targets.gguf.context_settings import settings_in
from phiquant.targets.gguf.error_log import CALLBACKS, ErrorLog

ROOM = 1024
"""Bytes for a struct; the largest has about 200."""


class Parameters(ctypes.Structure):
    """Any of llama.h's structs of parameters."""

    _fields_: ClassVar = [("words", ctypes.c_uint64 * (ROOM // 8))]


class Batch(ctypes.Structure):
    """llama.h's `llama_batch`, and room."""

    _fields_: ClassVar = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
        ("room", ctypes.c_uint64 * (ROOM // 8)),
    ]


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

POINTER, TEXT, INT, BOOL = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_bool
TOKENS, FLOATS = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_float)

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "llama_backend_init": (None,),
    "llama_log_set": (None, LogCallback, POINTER),
    "llama_model_default_params": (Parameters,),
    "llama_model_load_from_file": (POINTER, TEXT, Parameters),
    "llama_model_free": (None, POINTER),
    "llama_model_get_vocab": (POINTER, POINTER),
    "llama_model_meta_val_str": (INT, POINTER, TEXT, TEXT, ctypes.c_size_t),
    "llama_model_n_ctx_train": (INT, POINTER),
    "llama_vocab_n_tokens": (INT, POINTER),
    "llama_vocab_is_eog": (BOOL, POINTER, INT),
    "llama_tokenize": (INT, POINTER, TEXT, INT, TOKENS, INT, BOOL, BOOL),
    "llama_detokenize": (INT, POINTER, TOKENS, INT, TEXT, INT, BOOL, BOOL),
    "llama_context_default_params": (Parameters,),
    "llama_init_from_model": (POINTER, POINTER, Parameters),
    "llama_free": (None, POINTER),
    "llama_set_n_threads": (None, POINTER, INT, INT),
    "llama_get_memory": (POINTER, POINTER),
    "llama_memory_clear": (None, POINTER, BOOL),
    "llama_batch_init": (Batch, INT, INT, INT),
    "llama_batch_free": (None, Batch),
    "llama_decode": (INT, POINTER, Batch),
    "llama_get_logits": (FLOATS, POINTER),
}
"""What each function gives, and what it takes."""


class SharedLibrary:
    """llama.cpp as a package brings it prebuilt. See `library.Library`."""

    def __init__(self, package: str, tested: str, module: str, file: str) -> None:
        """Load the first file of `module` whose name matches `file`; `module` is not imported.

        `tested` is the version of `package` that phiquant is tested with. Raises ImportError if
        no such file is installed, RequestError if it is of no use.
        """
        path = _installed(module, file)
        label = f"{package} {_version(package)}".strip()
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as error:
            raise RequestError(
                f"{label} does not load: {error}; install what it asks for with the system's "
                "packages (libgomp.so.1 is in libgomp1 of Debian and Ubuntu, libgomp of Fedora)"
            ) from error
        try:
            self.c: Any = _declared(loaded)
            self._defaults = bytes(self.c.llama_context_default_params())
            self._offsets = settings_in(self._defaults)
            _recognise_batch(self.c)
        except ValueError as error:
            raise RequestError(
                f"the llama.cpp of {label} is not one that phiquant knows: {error}; "
                f"install the version that it is tested with: pip install {package}=={tested}"
            ) from error
        self.name = f"llama.cpp {_build(loaded)} ({label})".replace("  ", " ")
        self.log = ErrorLog()
        callback = LogCallback(self.log.take)
        CALLBACKS.append(callback)
        self.c.llama_log_set(callback, None)

    def context_parameters(self, **settings: int) -> Parameters:
        changed = bytearray(self._defaults)
        for name, value in settings.items():
            struct.pack_into("<i", changed, self._offsets[name], value)
        return Parameters.from_buffer(changed)


def _installed(module: str, file: str) -> Path:
    spec = find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob(file)):
            return path
    raise ImportError(f"no {file} of {module} is installed")


def _declared(library: ctypes.CDLL) -> Any:
    """The functions with their types. Raises ValueError, with a phrase, if any is missing."""
    functions = {}
    for name, (result, *arguments) in FUNCTIONS.items():
        try:
            function = library[name]  # an object of its own; `library.name` would be shared
        except AttributeError as error:
            raise ValueError(f"it has no function {name}") from error
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return SimpleNamespace(**functions)


def _recognise_batch(c: Any) -> None:
    """Raises ValueError unless a new batch for tokens has the pointers that it should have."""
    batch = c.llama_batch_init(1, 0, 1)
    held = (batch.token, batch.pos, batch.n_seq_id, batch.seq_id, batch.logits)
    if batch.n_tokens or batch.embd or not all(held):
        raise ValueError("the fields of llama_batch are not what they used to be")
    c.llama_batch_free(batch)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _build(library: ctypes.CDLL) -> str:
    """llama.cpp's own version, where the library tells it."""
    try:
        function = library["llama_version"]
    except AttributeError:
        return ""
    function.restype = ctypes.c_char_p
    return str((function() or b"").decode())
