"""llama.cpp as `llama-cpp-python` brings it: compiled by pip, with declarations of its API."""
# ruff: noqa: ANN401 (what crosses the border are ctypes' untyped pointers)

from typing import Any

from phiquant.errors import RequestError
from phiquant.targets.gguf.error_log import CALLBACKS, ErrorLog
from phiquant.targets.gguf.shared_library import FUNCTIONS


class LlamaCppPython:
    """llama.cpp as `llama-cpp-python` declares it. See `library.Library`."""

    def __init__(self) -> None:
        """Raises ImportError if the package is not installed, RequestError if it is of no use."""
        try:
            from llama_cpp import __version__, llama_cpp
        except (RuntimeError, OSError) as error:
            raise RequestError(
                f"llama-cpp-python does not load: {error}; install it again, so that it is "
                "compiled on this machine: pip install --force-reinstall llama-cpp-python"
            ) from error
        for name in FUNCTIONS:
            if not hasattr(llama_cpp, name):
                raise RequestError(
                    f"the llama.cpp of llama-cpp-python {__version__} has no function {name}; "
                    "install a newer one: pip install --upgrade llama-cpp-python"
                )
        self.c: Any = llama_cpp
        # Older releases cannot tell llama.cpp's own version.
        own = getattr(llama_cpp, "llama_version", lambda: b"")().decode()
        self.name = f"llama.cpp {own} (llama-cpp-python {__version__})".replace("  ", " ")
        self.log = ErrorLog()
        callback = llama_cpp.llama_log_callback(self.log.take)
        CALLBACKS.append(callback)
        llama_cpp.llama_log_set(callback, None)

    def context_parameters(self, **settings: int) -> Any:
        parameters = self.c.llama_context_default_params()
        for name, value in settings.items():
            setattr(parameters, name, value)
        return parameters
