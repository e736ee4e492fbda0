"""The tokenizer's files as onnxruntime-genai reads them.

- Its template engine keeps white space that transformers drops, so the template is restated.
- It finds a template only where tokenizer_config.json names a class that it knows, and does not
  load another; which of the known classes it is makes no difference to the tokens, which
  tokenizer.json describes whole. Source: the table of classes in onnxruntime-extensions'
  operators/tokenizer/tokenizer_jsconfig.hpp.
- A SentencePiece vocabulary gets a step that stops its splitting (`whole_words`).
"""

import json
from dataclasses import replace

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.template_white_space import explicit_white_space
from phiquant.targets.onnx.whole_words import whole_words
from phiquant.targets.tokenizer_files import TokenizerFiles, json_file, read_tokenizer_files

KNOWN = (
    "GPT2Tokenizer",
    "LlamaTokenizer",
    "CodeGenTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
)
"""The classes that Phi's tokenizers have and the runtime knows, with "Fast" added too."""
ANY = "PreTrainedTokenizerFast"
"""The class for a tokenizer.json of any kind."""
CONFIG = "tokenizer_config.json"


def onnx_tokenizer_files(checkpoint: Checkpoint) -> TokenizerFiles:
    """The files for an ONNX artifact. Raises TokenizerError."""
    taken = read_tokenizer_files(checkpoint, explicit_white_space)
    config = json.loads(taken.files.get(CONFIG, b"{}"))
    if str(config.get("tokenizer_class")).removesuffix("Fast") not in KNOWN:
        config["tokenizer_class"] = ANY
    document = whole_words(taken.files["tokenizer.json"], checkpoint.tokenizer)
    files = {CONFIG: json_file(config), "tokenizer.json": document}
    return replace(taken, files={**taken.files, **files})
