"""Every field of a tokenizer's files, of every wrong kind: refused in one sentence, or harmless.

What is taken goes into artifacts; so that no field goes there of a kind that a loader does not
take, it is loaded by transformers.
"""

import copy
import itertools
import json

import pytest

from phiquant.errors import TokenizerError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.documents import read_document
from phiquant.targets.form import Request
from phiquant.targets.gguf.vocabulary import vocabulary
from phiquant.targets.gguf.white_space import fitted_name
from phiquant.targets.onnx.formats import read_form
from phiquant.targets.onnx.genai_config import genai_config
from phiquant.targets.onnx.tokenizer_text import onnx_tokenizer_files
from phiquant.targets.tokenizer_files import read_tokenizer_files
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SIZE = 512
WRONG = (None, True, -1, 10**30, 1.5, "x", [], {}, [None], {"a": [1]})
ADDITIONS = {
    "tokenizer.json": {},
    "tokenizer_config.json": {
        "additional_special_tokens": ["<|user|>"],
        "auto_map": {"AutoTokenizer": ["evil.py", None]},
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
        "clean_up_tokenization_spaces": False,
    },
    "special_tokens_map.json": {"cls_token": {"content": "<|user|>", "lstrip": False}},
    "added_tokens.json": {"<|extra|>": SIZE - 1},
    "generation_config.json": {
        "pad_token_id": 3,
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 5,
    },
}


@pytest.fixture(scope="module", params=["bpe", "sentencepiece"])
def directory(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    write_tiny_tokenizer(directory, SIZE, request.param)
    write_tiny_checkpoint(directory, num_hidden_layers=1)
    for file, fields in ADDITIONS.items():
        document = read_document(directory / file) | fields
        (directory / file).write_text(json.dumps(document), encoding="utf-8")
    return directory


def places(value, place=()):
    """The place of every value in a document; of long lists and objects, the first and last."""
    yield place
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        fields = isinstance(value, dict) and len(keys) < 40
        for key in keys if fields else sorted({keys[0], keys[-1]}) if keys else ():
            yield from places(value[key], (*place, key))


def changed(document, place, value):
    """The document with another value in one place."""
    if not place:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document


def taken(directory):
    """The files that artifacts get, by target; TokenizerError if the checkpoint's will not do."""
    checkpoint = Checkpoint.open(directory)
    tokenizer = checkpoint.tokenizer
    tokenizer.decode(tokenizer.encode("hello"))
    vocabulary(tokenizer, SIZE)
    fitted_name("name", tokenizer)
    onnx = onnx_tokenizer_files(checkpoint)
    generation = read_document(directory / "generation_config.json")
    form = read_form(Request())
    config = genai_config(checkpoint.architecture, form, onnx.special, generation)
    files = {**onnx.files, "genai_config.json": config}
    return {"onnx": files, "mlx": read_tokenizer_files(checkpoint).files}


def outcomes(directory, file, values):
    """Whatever `taken` gives with wrong values in each place of a file: `values`, in turn."""
    path = directory / file
    original = path.read_text(encoding="utf-8")
    document = json.loads(original)
    try:
        turns = itertools.cycle(values)
        for place in places(document):
            for value in next(turns):
                path.write_text(json.dumps(changed(document, place, value)), encoding="utf-8")
                try:
                    yield place, value, taken(directory)
                except TokenizerError as error:
                    yield place, value, str(error)
    finally:
        path.write_text(original, encoding="utf-8")


@pytest.mark.parametrize("file", ADDITIONS)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([WRONG[i::3] for i in range(3)], id="some in each place"),
        pytest.param([WRONG], id="all in each place", marks=pytest.mark.long),
    ],
)
def test_wrong_kinds_are_refused_in_a_sentence_or_harmless(directory, file, values, tmp_path):
    transformers = pytest.importorskip("transformers")
    refusals, accepted = 0, set()
    for place, value, outcome in outcomes(directory, file, values):
        if isinstance(outcome, str):
            refusals += 1
            assert "\n" not in outcome and len(outcome) < 600, (place, value)
        else:
            accepted.add(tuple(sorted(outcome["mlx"].items())))
    assert refusals > 2
    for number, files in enumerate(accepted):
        own = tmp_path / str(number)
        own.mkdir()
        for name, content in files:
            (own / name).write_bytes(content)
        assert transformers.AutoTokenizer.from_pretrained(own).encode("hello"), files
