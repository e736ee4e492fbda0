"""llama.cpp's own tokenizer, loaded from a GGUF file that holds nothing but a vocabulary."""

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from gguf import GGUFWriter

from llama_h import api
from phiquant.targets.gguf.library import library, token_pointer
from phiquant.targets.gguf.vocabulary import Vocabulary


def write_vocabulary_file(path: Path, words: Vocabulary, name: str) -> None:
    """The smallest file that llama.cpp loads with `vocab_only`."""
    writer = GGUFWriter(path, "phi3")
    writer.add_name(name)
    for key, value in words.entries:
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


class LlamaVocabulary:
    """The vocabulary of a loaded file."""

    def __init__(self, path: Path) -> None:
        self._c: Any = api()
        library().log.clear()
        parameters = self._c.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._c.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise RuntimeError(library().log.cause)
        self._vocabulary = self._c.llama_model_get_vocab(self._model)
        self.size = int(self._c.llama_vocab_n_tokens(self._vocabulary))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._c.llama_model_free(self._model)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Special tokens parsed."""
        data = text.encode("utf-8")
        ids = np.empty(2 * len(data) + 16, np.int32)
        pointer = token_pointer(ids)
        count = self._c.llama_tokenize(
            self._vocabulary, data, len(data), pointer, len(ids), add_special, True
        )
        assert count >= 0
        tokens: list[int] = ids[:count].tolist()
        return tokens

    def meta(self, key: str) -> str:
        """A field of the file as llama.cpp tells it."""
        buffer = ctypes.create_string_buffer(256)
        length = self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, 256)
        assert length >= 0, key
        return buffer.value.decode()

    def ends(self) -> set[int]:
        """The ids at which a generation stops."""
        return {number for number in range(self.size) if self.call("is_eog", number)}

    def call(self, function: str, *arguments: int) -> Any:
        """`llama_vocab_<function>(vocabulary, …)`."""
        return getattr(self._c, f"llama_vocab_{function}")(self._vocabulary, *arguments)
