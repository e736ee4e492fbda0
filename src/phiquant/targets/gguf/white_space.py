"""Special tokens that swallow the white space around them, and what llama.cpp makes of it.

A GGUF file cannot say which tokens do (`lstrip`, `rstrip`). llama.cpp has one rule, by the name of
the model (end of `llama_vocab::impl::load` in src/llama-vocab.cpp, as of b11739): if
`general.name` contains "phi-3" or "phi3" in any case, every special token swallows the ASCII white
space after it, except `<unk>`, `<s>` and `<|endoftext|>`; that rule needs those three and `</s>` in
the vocabulary, or the file does not load. So the name is part of the vocabulary, and is fitted
here: to the tokens that the model's chat template writes, which stand in every prompt, however many
others have been added.
"""

import re
from collections.abc import Iterable, Iterator

from phiquant.phi.tokenizer.chat_templates import written_tokens
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.tokenizer.tokenizer_json import AddedToken

STRIPPING_NAME = re.compile("phi-?3", re.IGNORECASE)
NOT_STRIPPING = frozenset(("<unk>", "<s>", "<|endoftext|>"))
NEEDED = NOT_STRIPPING | {"</s>"}


def fitted_name(name: str, tokenizer: Tokenizer) -> str:
    """`name` for `general.name`, changed as little as llama.cpp's rule for it demands.

    With Phi-3's tokenizer, "Phi 3 Mini" becomes "Phi-3 Mini" and "My Model" "My Model (Phi-3)";
    "phi3-like" with a tokenizer that does not strip, or that lacks the tokens that the rule needs,
    becomes "phi 3-like".
    """
    if _strips(tokenizer):
        hyphened = re.sub(r"\b(phi) (?=3)", r"\1-", name, flags=re.IGNORECASE)
        return hyphened if STRIPPING_NAME.search(hyphened) else f"{name} (Phi-3)"
    return STRIPPING_NAME.sub(lambda match: f"{match[0][:3]} 3", name)


def stripping_deviations(tokenizer: Tokenizer) -> Iterator[str]:
    """Where the rule, applied or not, differs from the tokenizer's own flags."""
    strips, added = _strips(tokenizer), tokenizer.definition.added
    kept = [token.text for token in added if token.rstrip > _rule(token, strips)]
    dropped = [token.text for token in added if token.rstrip < _rule(token, strips)]
    before = [token.text for token in added if token.lstrip]
    for texts, verb, place in (
        (kept, "keeps", "after"),
        (dropped, "drops", "after"),
        (before, "keeps", "before"),
    ):
        if texts:
            yield (
                f"llama.cpp {verb} white space {place} {_listed(texts)}, which the tokenizer "
                f"{'drops' if verb == 'keeps' else 'keeps'}"
            )


def _strips(tokenizer: Tokenizer) -> bool:
    """Whether the rule is to be applied: possible, and closer to the flags than leaving it.

    The tokens of the chat template decide; all together where it leaves the question open.
    """
    if not set(tokenizer.definition.pieces) >= NEEDED:
        return False
    added, template = tokenizer.definition.added, tokenizer.special.chat_template
    written = written_tokens(template or "", (token.text for token in added))
    gained = _gained(token for token in added if token.text in written)
    return (gained or _gained(added)) > 0


def _gained(tokens: Iterable[AddedToken]) -> int:
    """How many more tokens the rule is right for than wrong."""
    followed = [token for token in tokens if _rule(token, strips=True)]
    return sum(1 if token.rstrip else -1 for token in followed)


def _rule(token: AddedToken, strips: bool) -> bool:
    return strips and token.text not in NOT_STRIPPING


def _listed(texts: list[str], limit: int = 4) -> str:
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"
