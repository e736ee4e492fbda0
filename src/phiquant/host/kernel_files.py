"""The files in which a kernel's machine code is kept: named after all that it follows from.

numba's own files are numbered, and an index for each function says which number is for which
types. Two processes that compile a function for different types at the same time give both the
same number, and the index then leads to the other's machine code. It leads to an older file where
a process is killed between the two. Nobody would notice: the arithmetic is wrong, or goes astray
in memory. And a kernel stays in use, as a part of those that call it, after it has changed.

So here a file is named after everything that its machine code follows from: the types, the
processor, the version of numba, and the code and the constants of every function that is called.
It appears whole, and there is no index.
"""

import types
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

CONSTANTS = (bool, int, float, str, tuple, np.generic)
"""What numba takes from a module as it is when it compiles a function."""


class KernelFiles(IndexDataCacheFile):  # type: ignore[misc]
    """The files of one kernel, in the directory and with the writing that numba chose for it."""

    def __init__(self, made: Any) -> None:  # noqa: ANN401 (numba's dispatcher)
        self._base = made._cache._impl.filename_base
        self._made = made
        super().__init__(made._cache.cache_path, self._base, None)

    def load(self, key: object) -> object:
        """What was saved for `key`; None if there is nothing, or it is damaged."""
        try:
            return self._load_data(self._name(key))
        except Exception:  # a damaged pickle raises anything
            return None

    def save(self, key: object, data: object) -> None:
        """Keep `data` for `key`, in place of what was made of an older version of the kernel."""
        self._save_data(self._name(key), data)
        for file in Path(self._cache_path).glob(f"{self._base}.*.nb?"):
            if not file.name.startswith(f"{self._base}.{self._content}-"):
                file.unlink(missing_ok=True)

    def flush(self) -> None:
        """Nothing, for there is no index."""

    def _name(self, key: object) -> str:
        return f"{self._base}.{self._content}-{_digest(repr(key))}.nbc"

    @cached_property
    def _content(self) -> str:
        """Of the kernel; asked for first when it is called, and all that it calls is there."""
        return _digest(*_text_of(self._made, set()), numba.__version__, llvmlite.__version__)


def _digest(*texts: str) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:16]


def _text_of(value: object, seen: set[int]) -> Iterator[str]:
    """What a compiled function follows from: code, options, constants, and all that it calls."""
    if isinstance(value, Dispatcher):
        yield repr([(name, _sorted(each)) for name, each in sorted(value.targetoptions.items())])
        value = value.py_func
    value = getattr(value, "_defn", value)  # of an intrinsic
    if isinstance(value, types.FunctionType) and id(value) not in seen:
        seen.add(id(value))
        yield value.__qualname__
        yield from _text_of_code(value.__code__, value.__globals__, seen)


def _text_of_code(code: types.CodeType, names: dict[str, Any], seen: set[int]) -> Iterator[str]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _text_of_code(constant, names, seen)
        else:
            yield repr(_sorted(constant))
    for name in code.co_names:
        yield name
        value = names.get(name)
        yield repr(value) if isinstance(value, CONSTANTS) else ""
        yield from _text_of(value, seen)


def _sorted(value: object) -> object:
    """A set in an order that is the same in every process."""
    return sorted(value) if isinstance(value, set | frozenset) else value
