"""Kernels: functions that numba compiles for this processor, once, and keeps on disk.

With NUMBA_DISABLE_JIT=1 (numba's own switch) every function stays as it is, and numba, the greater
part of all imports, is not loaded: a process that only runs an artifact needs no kernel.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["intrinsic", "kernel", "njit", "types"]

Function = TypeVar("Function", bound=Callable[..., Any])

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

# `njit`, `intrinsic` and `types` are for what is compiled as a part of a kernel.
if COMPILED:
    from numba import njit, types
    from numba.extending import intrinsic

    from phiquant.host.kernel_files import KernelFiles
else:
    types = None

    def njit(**_options: Any) -> Any:  # noqa: ANN401 (numba's own)
        return lambda function: function

    def intrinsic(function: Any) -> Any:  # noqa: ANN401 (numba's own)
        return function


def kernel(**options: Any) -> Callable[[Function], Function]:  # noqa: ANN401 (numba's own)
    """`numba.njit(nogil=True, **options)`, with files that processes can share at any time."""

    def compiled(function: Function) -> Function:
        if not COMPILED:
            return function
        made: Any = njit(cache=True, nogil=True, **options)(function)
        made._cache._cache_file = KernelFiles(made)
        return made  # type: ignore[no-any-return]

    return compiled
