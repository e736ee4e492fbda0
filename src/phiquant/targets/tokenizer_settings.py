"""`tokenizer_config.json` and its like, as far as transformers and onnxruntime-genai may read them.

transformers hands most keys to the constructor of the tokenizer's class, which takes some for
paths (`vocab_file`, `gguf_file`), and onnxruntime-extensions opens `tiktoken_file`. `auto_map`
names code: transformers is told not to run it, and then takes a class of its own.
Source: tokenization_utils_base.py and tokenization_auto.py of transformers 5.23,
tokenizer_jsconfig.hpp of onnxruntime-extensions.
"""

from collections.abc import Mapping
from pathlib import Path

from phiquant.host import foreign
from phiquant.targets.admission import (
    Schema,
    admit,
    among,
    anything,
    matching,
    plain,
    read_settings,
    text,
)

CONFIG, TOKENS = "tokenizer_config.json", "special_tokens_map.json"

CLASSES = (
    "CodeGenTokenizer", "CodeGenTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast",
    "LlamaTokenizer", "LlamaTokenizerFast", "NewlineTokenizer", "PreTrainedTokenizerFast",
    "Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend",
)  # fmt: skip
"""Classes of transformers that read tokenizer.json or tokenizer.model, and nothing else."""


def _text_or_none(value: object) -> bool:
    return value is None or text(value)


def _sampling(value: object) -> bool:
    """SentencePiece's arguments; another of them is a file."""
    known = {"enable_sampling", "nbest_size", "alpha"}
    return isinstance(value, dict) and set(value) <= known and all(map(plain, value.values()))


FLAGS = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces",
    "do_lower_case", "fix_mistral_regex", "from_slow", "is_local", "legacy", "local_files_only",
    "remove_space", "keep_accents", "spaces_between_special_tokens", "split_special_tokens",
    "trim_offsets", "use_default_system_prompt", "use_fast",
)  # fmt: skip
NUMBERS = (
    "max_length", "max_len", "model_max_length", "pad_to_multiple_of", "pad_token_type_id",
    "stride",
)  # fmt: skip
WORDS: Mapping[str, tuple[object, ...]] = {
    "errors": ("replace", "strict", "ignore"),
    "padding_side": ("left", "right"),
    "truncation_side": ("left", "right"),
    "truncation": (True, False, None, "longest_first", "only_first", "only_second"),
    "truncation_strategy": ("longest_first", "only_first", "only_second", "do_not_truncate"),
    "padding": (True, False, None, "longest", "max_length", "do_not_pad"),
    "backend": ("tokenizers", "sentencepiece", "custom"),
    "tokenizer_class": (*CLASSES, None),
}
LOOKED_UP = (
    "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "auto_map",
    "model_input_names", "model_specific_special_tokens", "response_schema",
)  # fmt: skip
"""Texts and tokens, in lists and objects. `auto_map` is not followed."""
TEXTS = (
    "chat_template", "name_or_path", "special_tokens_map_file", "processor_class",
    "transformers_version", "_commit_hash", "tool_parser_type", "chat_template_type",
)  # fmt: skip
"""transformers puts paths of its own in place of those; mlx_lm has modules by the names of the last
two."""

SETTINGS: Schema = {
    **dict.fromkeys(FLAGS, plain),
    **dict.fromkeys(NUMBERS, plain),
    **{key: among(*words) for key, words in WORDS.items()},
    **dict.fromkeys(LOOKED_UP, anything),
    **dict.fromkeys(TEXTS, _text_or_none),
    "sp_model_kwargs": _sampling,
    "tokenizer_file": among(None, "tokenizer.json"),
    "chat_template": anything,  # a list of named templates in some files
    "tool_parser_type": matching(r"\w+"),
    "chat_template_type": matching(r"\w+"),
}


def check_tokenizer_settings(directory: Path) -> None:
    """Raise ArtifactError for settings of the tokenizer in `directory` that might do harm."""
    for file in (CONFIG, TOKENS):
        if not foreign.present(directory / file):
            continue
        document = read_settings(directory / file)
        others = {key: value for key, value in document.items() if not _is_token(key, value)}
        admit(others, SETTINGS, file)


def _is_token(key: str, value: object) -> bool:
    """Whether it is a special token, by whatever name: text, or its description."""
    return key.endswith(("_token", "_token_id")) and (plain(value) or isinstance(value, dict))
