"""llama.cpp through whichever of its two bindings loads here: the few calls that are needed.

`llama-cpp-py-sync` is prebuilt, but its Linux wheels want glibc 2.38 (Ubuntu 24.04, Debian 13);
elsewhere `llama-cpp-python`, compiled at installation, offers the same C functions.

    python llama_library.py

says which of them is in use, and fails where neither is.
"""

import ctypes
import sys
from importlib.metadata import version
from typing import Any, Protocol


class LlamaLibrary(Protocol):
    """What the scripts beside this one ask of llama.cpp."""

    name: str

    def quantize(self, source: str, output: str, file_type: int, threads: int) -> int:
        """`llama_model_quantize`; 0 for success."""

    def evaluate(self, path: str, tokens: list[int]) -> tuple[str, int, int, list[float]]:
        """Load a model: description, parameters, bytes of tensors, logits after `tokens`."""


class PySync:
    """The cffi bindings of `llama-cpp-py-sync`."""

    def __init__(self) -> None:
        from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

        self.ffi, self.library = get_ffi(), get_lib()
        self.library.llama_backend_init()
        self.name = f"llama-cpp-py-sync {version('llama-cpp-py-sync')}"

    def quantize(self, source: str, output: str, file_type: int, threads: int) -> int:
        parameters = self.ffi.new("llama_model_quantize_params *")
        parameters[0] = self.library.llama_model_quantize_default_params()
        parameters.nthread, parameters.ftype = threads, file_type
        return int(self.library.llama_model_quantize(source.encode(), output.encode(), parameters))

    def evaluate(self, path: str, tokens: list[int]) -> tuple[str, int, int, list[float]]:
        library, ffi = self.library, self.ffi
        model = library.llama_model_load_from_file(
            path.encode(), library.llama_model_default_params()
        )
        if model == ffi.NULL:
            sys.exit(f"llama.cpp does not load {path}")
        parameters = library.llama_context_default_params()
        parameters.n_ctx = 64
        context = library.llama_init_from_model(model, parameters)
        batch = ffi.new("llama_token[]", tokens)
        if library.llama_decode(context, library.llama_batch_get_one(batch, len(tokens))):
            sys.exit(f"llama.cpp does not evaluate {path}")
        vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        logits = ffi.unpack(library.llama_get_logits_ith(context, -1), vocabulary)
        description = ffi.new("char[256]")
        library.llama_model_desc(model, description, 256)
        return (
            ffi.string(description).decode(),
            library.llama_model_n_params(model),
            library.llama_model_size(model),
            logits,
        )


class CppPython:
    """The ctypes bindings of `llama-cpp-python`."""

    def __init__(self) -> None:
        import llama_cpp

        self.library: Any = llama_cpp
        self.library.llama_backend_init()
        self.name = f"llama-cpp-python {llama_cpp.__version__}"

    def quantize(self, source: str, output: str, file_type: int, threads: int) -> int:
        parameters = self.library.llama_model_quantize_default_params()
        parameters.nthread, parameters.ftype = threads, file_type
        return int(
            self.library.llama_model_quantize(
                source.encode(), output.encode(), ctypes.byref(parameters)
            )
        )

    def evaluate(self, path: str, tokens: list[int]) -> tuple[str, int, int, list[float]]:
        library = self.library
        model = library.llama_model_load_from_file(
            path.encode(), library.llama_model_default_params()
        )
        if not model:
            sys.exit(f"llama.cpp does not load {path}")
        parameters = library.llama_context_default_params()
        parameters.n_ctx = 64
        context = library.llama_init_from_model(model, parameters)
        batch = (library.llama_token * len(tokens))(*tokens)
        if library.llama_decode(context, library.llama_batch_get_one(batch, len(tokens))):
            sys.exit(f"llama.cpp does not evaluate {path}")
        vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        logits = library.llama_get_logits_ith(context, -1)[:vocabulary]
        description = ctypes.create_string_buffer(256)
        library.llama_model_desc(model, description, 256)
        return (
            description.value.decode(),
            library.llama_model_n_params(model),
            library.llama_model_size(model),
            logits,
        )


def open_llama() -> LlamaLibrary:
    reasons = []
    for binding in (PySync, CppPython):
        try:
            return binding()
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{binding.__name__}: {error}")
    sys.exit("No binding of llama.cpp loads here. " + "; ".join(reasons))


if __name__ == "__main__":
    print(open_llama().name)
