"""Which of a checkpoint's chat templates is the one in use: transformers decides."""

import json

import pytest

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.chat_templates import (
    DEFAULT,
    read_chat_templates,
    written_tokens,
)
from tiny_tokenizer import CHAT_TEMPLATE, write_tiny_tokenizer

NAMED = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
PLACES = {
    "a text": ("C", {}),
    "a text with other line ends": ("a\r\nb\rc\n", {}),
    "a list": (NAMED, {}),
    "a list without a default": (NAMED[:1], {}),
    "an object": ({"default": "D", "rag": "R"}, {}),
    "nothing": (None, {}),
    "a file": (None, {"chat_template.jinja": "F\r\n"}),
    "a file before a text": ("C", {"chat_template.jinja": "F"}),
    "a file before a list": (NAMED, {"chat_template.jinja": "F"}),
    "further files": (
        None,
        {"chat_template.jinja": "F", "additional_chat_templates/rag.jinja": "R"},
    ),
    "a further file before a text": ("C", {"additional_chat_templates/rag.jinja": "R"}),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tokenizer without a chat template."""
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(directory)
    return directory


def place(source, directory, stored, files):
    """The tokenizer in `source` with its templates in other places."""
    directory.mkdir()
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    config = json.loads((directory / "tokenizer_config.json").read_text()) | {
        "chat_template": stored
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(text.encode())


@pytest.mark.parametrize("where", PLACES)
def test_the_templates_are_those_that_transformers_finds(directory, tmp_path, where):
    transformers = pytest.importorskip("transformers")
    stored, files = PLACES[where]
    place(directory, tmp_path / "model", stored, files)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    named = theirs if isinstance(theirs, dict) else {DEFAULT: theirs} if theirs else {}
    lines = {name: text.replace("\r\n", "\n").replace("\r", "\n") for name, text in named.items()}
    templates = read_chat_templates(tmp_path / "model", stored)
    assert dict(templates) == lines
    assert [name for name, _ in templates] == sorted(
        lines, key=lambda name: (name != DEFAULT, name)
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHAT_TEMPLATE, {"<|user|>", "<|system|>", "<|end|>"}),
        ("<|{{ role }}|>\n{{ content }}<|end|>", {"<|user|>", "<|system|>", "<|end|>"}),
        ("{{ '<|user|>' + messages[0].content + '<tool>' }}", {"<|user|>", "<tool>"}),
        ("{{ messages }}", set()),
    ],
)
def test_tokens_that_a_template_writes(template, expected):
    tokens = ("<|user|>", "<|system|>", "<|end|>", "<tool>", "<|other|>")
    assert written_tokens(template, tokens) == expected


@pytest.mark.parametrize(
    "stored",
    [
        7,
        True,
        ["D"],
        [{"name": "default"}],
        [{"template": "D"}],
        [{"name": "default", "template": ["D"]}],
        {"default": None},
    ],
)
def test_what_is_no_template_is_refused_in_a_sentence(tmp_path, stored):
    with pytest.raises(TokenizerError, match=r"chat_template in tokenizer_config\.json") as caught:
        read_chat_templates(tmp_path, stored)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(TokenizerError, match=r"UTF-8 text in .*chat_template\.jinja"):
        read_chat_templates(tmp_path, None)
