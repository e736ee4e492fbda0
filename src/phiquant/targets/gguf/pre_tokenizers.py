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

Of several names for one set, the one that llama.cpp's own converter gives is taken, because clients
show it and older ones may know no other. The converter tells vocabularies apart by the tokens of
one text (`get_vocab_base_pre` in conversion/base.py).
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.expressions import (
    GPT_2_EXPRESSION,
    GPT_4_EXPRESSION,
    GPT_4O_EXPRESSION,
    QWEN_2_EXPRESSION,
)
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.tokenizer.tokenizer_json import Definition

NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT_4_EXPRESSION,), False): "dbrx",
    ((GPT_4_EXPRESSION,), True): "llama-bpe",
    ((GPT_4O_EXPRESSION,), False): "granite-embed-multi-97m",
    ((GPT_4O_EXPRESSION,), True): "granite-embed-multi-97m",
    ((GPT_2_EXPRESSION,), False): "gpt-2",
    ((r"\p{N}", GPT_2_EXPRESSION), False): "smollm",
    ((QWEN_2_EXPRESSION,), False): "qwen2",
}


CONVERTERS_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫\ufe0f "
    "(multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 "
    "3.3 3..3 3...3 ក\u17b6ន\u17cbត\u17c2ព\u17b7ស\u17c1សអ\u17b6ច😁 ?我想在apple工作1314151天～ "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've "
    "been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like "
    "some tea? We'Ve a'lL"
)
"""The text by whose tokens llama.cpp's converter knows a vocabulary."""

CONVERTERS_NAMES: Mapping[str, Mapping[str, str]] = {
    "gpt-2": {"fcace8b9cac38ce847670c970cd5892031a753a1ef381abd1d9af00f713da085": "phi-2"},
}
"""By name in `NAMES`: further names of the same set, by the fingerprint of the vocabulary to which
the converter gives them. It calls Phi-4's dbrx and SmolLM's smollm, as `NAMES` does, and
Phi-4-mini's gpt-4o, which is another set."""


def pre_tokenizer_name(tokenizer: Tokenizer) -> str:
    """The name for `tokenizer.ggml.pre`; TokenizerError if llama.cpp has none that splits so."""
    definition = tokenizer.definition
    name = NAMES.get((definition.splitting, definition.ignore_merges))
    if name is None:
        splitting = ", then ".join(definition.splitting) or "no splitting at all"
        raise TokenizerError(
            "llama.cpp has no known pre-tokenizer that splits text as this tokenizer does: "
            f"{splitting}{' (with ignore_merges)' if definition.ignore_merges else ''}; "
            "use the original tokenizer of the Phi model that this one was derived from"
        )
    others = CONVERTERS_NAMES.get(name)
    return others.get(fingerprint(tokenizer), name) if others else name


def fingerprint(tokenizer: Tokenizer) -> str:
    """What llama.cpp's converter knows the vocabulary by: a hash of the tokens of one text."""
    return sha256(str(tokenizer.encode(CONVERTERS_TEXT)).encode()).hexdigest()


def splitting_deviations(definition: Definition) -> Iterator[str]:
    """Where the named set only approximates the expressions."""
    if GPT_4O_EXPRESSION in definition.splitting:
        yield (
            "when it splits text, llama.cpp knows upper from lower case in ASCII only, so that an "
            "accented, Cyrillic or Greek word with a capital inside may have other tokens"
        )
