"""llama.cpp through whichever packages bring it here: the few calls that are needed.

`xllamacpp` runs models and `cyllama` quantizes them; both are prebuilt, for any processor with
AVX2. `llama-cpp-python`, where it is installed, does both instead: pip compiles it for the very
processor, so that the peer is at its fastest.

    python llama_library.py

says what is in use, and fails where nothing is.
"""
# ruff: noqa: ANN401 (what crosses the border are ctypes' untyped pointers)

import ctypes
import sys
from abc import ABC, abstractmethod
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Struct(ctypes.Structure):
    """Room for any struct of llama.h, which is handed back to llama.cpp as it came."""

    _fields_ = (("words", ctypes.c_uint32 * 256),)


POINTER, TEXT, INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
TOKENS, FLOATS = ctypes.POINTER(INT), ctypes.POINTER(ctypes.c_float)

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "llama_backend_init": (None,),
    "llama_model_default_params": (Struct,),
    "llama_model_load_from_file": (POINTER, TEXT, Struct),
    "llama_model_get_vocab": (POINTER, POINTER),
    "llama_model_desc": (INT, POINTER, TEXT, ctypes.c_size_t),
    "llama_model_n_params": (ctypes.c_uint64, POINTER),
    "llama_model_size": (ctypes.c_uint64, POINTER),
    "llama_vocab_n_tokens": (INT, POINTER),
    "llama_context_default_params": (Struct,),
    "llama_init_from_model": (POINTER, POINTER, Struct),
    "llama_batch_get_one": (Struct, TOKENS, INT),
    "llama_decode": (INT, POINTER, Struct),
    "llama_get_logits_ith": (FLOATS, POINTER, INT),
}
"""What each function gives, and what it takes."""


class LlamaLibrary(ABC):
    """What the scripts beside this one ask of llama.cpp."""

    name: str
    c: Any

    @abstractmethod
    def quantize(self, source: str, output: str, file_type: int, threads: int) -> None:
        """`llama_model_quantize`; ends the program where it fails."""

    @abstractmethod
    def context_parameters(self, tokens: int) -> Any:
        """llama.cpp's defaults for a context, but of `tokens`."""

    def load(self, path: str, tokens: int) -> tuple[Any, Any]:
        """A model, and a context of `tokens` for it; ends the program where either fails."""
        model = self.c.llama_model_load_from_file(
            path.encode(), self.c.llama_model_default_params()
        )
        context = model and self.c.llama_init_from_model(model, self.context_parameters(tokens))
        if not context:
            sys.exit(f"llama.cpp does not load {path}")
        return model, context

    def decode(self, context: Any, tokens: list[int]) -> None:
        """Go on by `tokens`; ends the program where that fails."""
        array = (INT * len(tokens))(*tokens)
        if self.c.llama_decode(context, self.c.llama_batch_get_one(array, len(tokens))):
            sys.exit("llama.cpp does not evaluate the model")

    def evaluate(self, path: str, tokens: list[int]) -> tuple[str, int, int, list[float]]:
        """Load a model: description, parameters, bytes of tensors, logits after `tokens`."""
        model, context = self.load(path, 64)
        self.decode(context, tokens)
        vocabulary = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(model))
        description = ctypes.create_string_buffer(256)
        self.c.llama_model_desc(model, description, 256)
        return (
            description.value.decode(),
            self.c.llama_model_n_params(model),
            self.c.llama_model_size(model),
            self.c.llama_get_logits_ith(context, -1)[:vocabulary],
        )


class CppPython(LlamaLibrary):
    """`llama-cpp-python`, with its own declarations of llama.h."""

    def __init__(self) -> None:
        import llama_cpp

        self.c = llama_cpp
        self.c.llama_backend_init()
        self.name = f"llama-cpp-python {llama_cpp.__version__}"

    def quantize(self, source: str, output: str, file_type: int, threads: int) -> None:
        parameters = self.c.llama_model_quantize_default_params()
        parameters.nthread, parameters.ftype = threads, file_type
        if self.c.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(parameters)):
            sys.exit(f"llama.cpp does not quantize {source}")

    def context_parameters(self, tokens: int) -> Any:
        parameters = self.c.llama_context_default_params()
        parameters.n_ctx = tokens
        return parameters


class Prebuilt(LlamaLibrary):
    """The shared library in `xllamacpp`, and `cyllama` for what that library leaves out."""

    def __init__(self) -> None:
        self.c = SimpleNamespace()
        library = ctypes.CDLL(str(_extension()))
        for name, (result, *arguments) in FUNCTIONS.items():
            function = library[name]
            function.restype, function.argtypes = result, arguments
            setattr(self.c, name, function)
        self.c.llama_backend_init()
        self.name = f"xllamacpp {version('xllamacpp')}, cyllama {version('cyllama')}"

    def quantize(self, source: str, output: str, file_type: int, threads: int) -> None:
        from cyllama.llama import llama_cpp as cyllama

        parameters = cyllama.LlamaModelQuantizeParams()
        parameters.nthread, parameters.ftype = threads, file_type
        cyllama.model_quantize(source, output, parameters)

    def context_parameters(self, tokens: int) -> Any:
        parameters = self.c.llama_context_default_params()
        if parameters.words[0] != 512:
            sys.exit("the first field of llama_context_params is not n_ctx")
        parameters.words[0] = tokens
        return parameters


def _extension() -> Path:
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ImportError("xllamacpp is not installed")
    return next(Path(spec.origin).parent.glob("xllamacpp*.so"))


def open_llama() -> LlamaLibrary:
    reasons = []
    for binding in (CppPython, Prebuilt):
        try:
            return binding()
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{binding.__name__}: {error}")
    sys.exit("No llama.cpp loads here. " + "; ".join(reasons))


if __name__ == "__main__":
    print(open_llama().name)
