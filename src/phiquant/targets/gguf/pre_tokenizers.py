"""The names by which llama.cpp knows a byte-level tokenizer's splitting expressions.

A GGUF file does not hold the expressions; `tokenizer.ggml.pre` names a set that is compiled into
llama.cpp (`llm_tokenizer_bpe` in src/llama-vocab.cpp, as of b11739), some of them only
approximately. Each name below was chosen for equal tokens, which the tests prove in the runtime.
Several names share one set; where they differ is in whether merging is skipped for whole words in
the vocabulary (`ignore_merges` in tokenizer.json), hence the second half of the key.

The surprising one is GPT-4o's expression, which Phi-4-mini has. llama.cpp's set called `gpt-4o`
takes no combining mark for part of a word, and so splits Hindi, Thai and vocalised Arabic into
more tokens than the model was trained on. The set that IBM's embedding models brought later
differs in nothing but that it takes them. It takes whole words without merging, which gives the
same tokens in every vocabulary that was made by merging. llama.cpp knows the name since May 2026.
"""

from collections.abc import Iterator

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.splitting import GPT_2_EXPRESSION
from phiquant.phi.tokenizer.tokenizer_json import Definition

GPT_4_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Phi-4 (14B) and its reasoning variants, after GPT-4's cl100k_base."""

GPT_4O_EXPRESSION = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Phi-4-mini, after GPT-4o's o200k_base."""

QWEN_2_EXPRESSION = GPT_4_EXPRESSION.replace(r"\p{N}{1,3}", r"\p{N}")

NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT_4_EXPRESSION,), False): "dbrx",
    ((GPT_4_EXPRESSION,), True): "llama-bpe",
    ((GPT_4O_EXPRESSION,), False): "granite-embed-multi-97m",
    ((GPT_4O_EXPRESSION,), True): "granite-embed-multi-97m",
    ((GPT_2_EXPRESSION,), False): "gpt-2",
    ((r"\p{N}", GPT_2_EXPRESSION), False): "smollm",
    ((QWEN_2_EXPRESSION,), False): "qwen2",
}


def pre_tokenizer_name(definition: Definition) -> str:
    """The name for `tokenizer.ggml.pre`; TokenizerError if llama.cpp has none that splits so."""
    name = NAMES.get((definition.splitting, definition.ignore_merges))
    if name is None:
        found = ", then ".join(definition.splitting) or "no splitting at all"
        raise TokenizerError(
            f"llama.cpp has no known pre-tokenizer that splits text as this tokenizer does: {found}"
            f"{' (with ignore_merges)' if definition.ignore_merges else ''}; "
            "use the original tokenizer of the Phi model that this one was derived from"
        )
    return name


def splitting_deviations(definition: Definition) -> Iterator[str]:
    """Where the named set only approximates the expressions."""
    if GPT_4O_EXPRESSION in definition.splitting:
        yield (
            "when it splits text, llama.cpp knows upper from lower case in ASCII only, so that an "
            "accented, Cyrillic or Greek word with a capital inside may have other tokens"
        )
