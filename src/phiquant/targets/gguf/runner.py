"""A GGUF artifact in llama.cpp itself: tokens in, logits out.

llama.cpp decides between LongRoPE's short and long factors once, by the size of the context that
it is given, so a context is made to fit each sequence: at most the original training length for
a sequence that fits in it, larger for one that does not. (Contexts come in steps of 256 tokens;
a model with a shorter original length always runs on its long factors.) Keys and values are
cached in F32 and attention is computed without the fused kernel, so that what differs from the
reference comes from the weights and from llama.cpp's own matrix products, not from the cache.
"""

import ctypes
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError, ResourceError
from phiquant.host.cores import cores
from phiquant.quantization.grid import Floats
from phiquant.targets.gguf.file import read_gguf
from phiquant.targets.gguf.library import Library, floats_at, library, token_pointer
from phiquant.targets.gguf.locate import gguf_files
from phiquant.targets.gguf.metadata import ORIGINAL_CONTEXT
from phiquant.targets.gguf.template_engine import render
from phiquant.targets.target import Generation

CONTEXT_STEP = 256
"""llama.cpp rounds contexts up to a multiple of this."""
MAX_CHUNK = 512
"""Tokens decoded at once."""
MAX_CHUNK_LOGITS = 1 << 25
"""Logits that llama.cpp may hold at once: 128 MiB."""
GGML_F32 = 0
FLASH_ATTENTION_OFF = 0


class GgufRunner:
    """See `targets.target.Runner`. Use it from one thread; leaving the context frees it."""

    slow = False

    def __init__(self, path: Path) -> None:
        """Load the artifact. Raises ArtifactError if llama.cpp refuses it, MissingDependency
        if there is no llama.cpp.
        """
        self._library: Library = library()
        self._c = self._library.c
        self._context: Any = None
        self._size = 0
        file = self._file = gguf_files(path)[0]
        _check_tokens(file)
        self._library.log.clear()
        parameters = self._c.llama_model_default_params()
        self._model = self._c.llama_model_load_from_file(os.fsencode(file), parameters)
        if not self._model:
            raise ArtifactError(f"llama.cpp refuses {file}: {self._library.log.cause}")
        self._vocab = self._c.llama_model_get_vocab(self._model)
        self._vocabulary = int(self._c.llama_vocab_n_tokens(self._vocab))
        self._chunk = max(1, min(MAX_CHUNK, MAX_CHUNK_LOGITS // max(self._vocabulary, 1)))
        self._original = self._original_context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._free_context()
        if self._model:
            self._c.llama_model_free(self._model)
            self._model = None

    @property
    def runtime(self) -> str:
        """The runtime's name and version."""
        return self._library.name

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's tokenization of `text`, special tokens parsed, none added."""
        data = text.encode("utf-8")
        tokens = np.empty(len(data) + 8, np.int32)
        count = self._c.llama_tokenize(
            self._vocab, data, len(data), token_pointer(tokens), len(tokens), False, True
        )
        if count < 0:  # too small, and this many are needed
            tokens = np.empty(-count, np.int32)
            count = self._c.llama_tokenize(
                self._vocab, data, len(data), token_pointer(tokens), len(tokens), False, True
            )
        result: list[int] = tokens[:count].tolist()
        return result

    def text(self, tokens: npt.NDArray[np.int32]) -> str:
        """The text of `tokens`, special tokens left out."""
        tokens = np.ascontiguousarray(tokens, np.int32)
        size = 16 * len(tokens) + 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = self._c.llama_detokenize(
                self._vocab, token_pointer(tokens), len(tokens), buffer, size, False, False
            )
            if written >= 0:
                return buffer.raw[:written].decode("utf-8", errors="replace")
            size = -written

    def stops_at(self, token: int) -> bool:
        """Whether llama.cpp counts `token` among those that end a generation."""
        return bool(self._c.llama_vocab_is_eog(self._vocab, token))

    @property
    def chat_template(self) -> str | None:
        """The template in the file's metadata."""
        template = read_gguf(self._file).fields.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt for `messages` by llama.cpp's own template engine; see `template_engine`."""
        return render(self._file, messages)

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary), float32, of one sequence from an empty cache; of its
        `last` tokens only, where that is given.
        """
        self._check(tokens)
        self._start(len(tokens))
        skipped = 0 if last is None else len(tokens) - last
        result = np.empty((len(tokens) - skipped, self._vocabulary), np.float32)
        for first in range(0, len(tokens), self._chunk):
            part = tokens[first : first + self._chunk]
            end = first + len(part)
            wanted = min(len(part), max(end - skipped, 0))
            logits = self._decode(part, first, max(wanted, 1))  # it always gives the last one's
            if wanted:
                result[end - wanted - skipped : end - skipped] = logits
        return result

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily, at most `limit` tokens; the end of sequence that stops it
        is not among them.
        """
        self._check(prompt)
        self._start(len(prompt) + limit)
        for first in range(0, len(prompt), self._chunk):
            part = prompt[first : first + self._chunk]
            logits = self._decode(part, first, 1)
        tokens: list[int] = []
        stopped = False
        began = time.perf_counter()
        while len(tokens) < limit:
            token = int(np.argmax(logits[-1]))
            if self.stops_at(token):
                stopped = True
                break
            tokens.append(token)
            if len(tokens) < limit:
                position = len(prompt) + len(tokens) - 1
                logits = self._decode(np.array([token], np.int32), position, 1)
        seconds = time.perf_counter() - began
        return Generation(tuple(tokens), self.text(np.array(tokens, np.int32)), stopped, seconds)

    def _check(self, tokens: npt.NDArray[np.int32]) -> None:
        assert tokens.ndim == 1 and len(tokens) > 0
        assert tokens.min() >= 0 and tokens.max() < self._vocabulary

    def _original_context(self) -> int:
        """The length up to which LongRoPE's short factors hold."""
        buffer = ctypes.create_string_buffer(32)
        length = self._c.llama_model_meta_val_str(
            self._model, ORIGINAL_CONTEXT.encode(), buffer, 32
        )
        if length > 0:
            return int(buffer.value)
        return int(self._c.llama_model_n_ctx_train(self._model))

    def _start(self, length: int) -> None:
        """An empty cache in a context on the right side of the boundary for `length` tokens."""
        size = -(-length // CONTEXT_STEP) * CONTEXT_STEP
        if self._context and self._size >= length and self._side(self._size) == self._side(length):
            self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
            return
        self._free_context()
        parameters = self._library.context_parameters(
            n_ctx=size,
            n_batch=self._chunk,
            n_ubatch=self._chunk,
            type_k=GGML_F32,
            type_v=GGML_F32,
            flash_attn_type=FLASH_ATTENTION_OFF,
        )
        self._library.log.clear()
        self._context = self._c.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ResourceError(
                f"llama.cpp cannot make a context of {size} tokens: {self._library.log.cause}"
            )
        self._c.llama_set_n_threads(self._context, cores(), cores())
        self._size = size
        self._batch = self._c.llama_batch_init(self._chunk, 0, 1)

    def _side(self, length: int) -> bool:
        """Whether a context of `length` tokens takes LongRoPE's long factors."""
        return length > self._original

    def _decode(self, tokens: npt.NDArray[np.int32], position: int, outputs: int) -> Floats:
        """Decode one chunk at `position`; the logits (outputs, vocabulary) of its last tokens,
        valid until the next call.
        """
        batch, count = self._batch, len(tokens)
        batch.n_tokens = count
        for index, token in enumerate(tokens.tolist()):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= count - outputs
        self._library.log.clear()
        status = self._c.llama_decode(self._context, batch)
        if status != 0:
            raise ArtifactError(
                f"llama.cpp failed at token {position} with status {status}: "
                f"{self._library.log.cause}"
            )
        pointer = self._c.llama_get_logits(self._context)
        flat = floats_at(pointer, outputs * self._vocabulary)
        return flat.reshape(outputs, self._vocabulary)

    def _free_context(self) -> None:
        if self._context:
            self._c.llama_batch_free(self._batch)
            self._c.llama_free(self._context)
            self._context = None


def _check_tokens(file: Path) -> None:
    """llama.cpp ends the whole process where it finds a token twice."""
    try:
        tokens = read_gguf(file).fields.get("tokenizer.ggml.tokens")
    except ArtifactError:
        return  # llama.cpp will say what it thinks of such a file
    if isinstance(tokens, tuple) and len(set(tokens)) < len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise ArtifactError(f"llama.cpp cannot load {file}: its vocabulary has {twice!r} twice")
