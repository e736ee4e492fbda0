"""A step for tokenizers that split nothing, so that onnxruntime-genai does not split either.

A SentencePiece vocabulary merges across words. Where `tokenizer.json` has no `pre_tokenizer`,
onnxruntime-extensions still cuts the text as GPT-2 does, at contractions and between blanks, and
"i  x" or "M'do" get other tokens than the model was trained on. An expression that takes all text
as one match makes it stop; to the tokenizers library it means the same as no step.
"""

import json

from phiquant.phi.tokenizer.expressions import ALL_TEXT_EXPRESSION
from phiquant.phi.tokenizer.splitting import flat
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.tokenizer.tokenizer_json import TokenizerKind

WHOLE = {
    "type": "Split",
    "pattern": {"Regex": ALL_TEXT_EXPRESSION},
    "behavior": "Isolated",
    "invert": False,
}


def whole_words(text: bytes, tokenizer: Tokenizer) -> bytes:
    """`text`, the tokenizer.json of `tokenizer`, with the step if it has none and needs it."""
    if tokenizer.kind is not TokenizerKind.SENTENCEPIECE:
        return text
    if any(flat(tokenizer.parsed.get("pre_tokenizer"), "pretokenizers")):
        return text
    document = json.loads(text) | {"pre_tokenizer": WHOLE}
    return json.dumps(document, ensure_ascii=False).encode()
