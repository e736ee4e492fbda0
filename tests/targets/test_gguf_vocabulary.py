"""GGUF vocabularies, proved in llama.cpp: the same tokens, the same ends.

The reference is the `tokenizers` library; the vocabularies are the real ones of the Phi family
(see `published_tokenizers`) and tiny ones for what those do not cover.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from gguf_models import tiny_checkpoint, write_gguf
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from llama_vocabulary import LlamaVocabulary, write_vocabulary_file
from parity_corpus import PASSAGES, random_texts
from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.splitting import GPT_2_EXPRESSION
from phiquant.phi.tokenizer.tokenizer import Tokenizer, read_tokenizer
from phiquant.targets.gguf.end_of_generation import ENDING_TEXTS, FILL_IN_TEXTS
from phiquant.targets.gguf.pre_tokenizers import (
    CONVERTERS_NAMES,
    GPT_4_EXPRESSION,
    GPT_4O_EXPRESSION,
    NAMES,
    QWEN_2_EXPRESSION,
    fingerprint,
    pre_tokenizer_name,
)
from phiquant.targets.gguf.vocabulary import Value, Vocabulary, vocabulary
from phiquant.targets.gguf.white_space import NOT_STRIPPING, fitted_name
from published_tokenizers import write_phi_3_5_mini, write_phi_4, write_phi_4_mini
from tiny_tokenizer import added_token, write_tiny_tokenizer

SIZE = 512


@dataclass(frozen=True)
class Pair:
    """A tokenizer as read, as written, and as llama.cpp loaded it."""

    tokenizer: Tokenizer
    written: Vocabulary
    llama: LlamaVocabulary

    @property
    def entries(self) -> dict[str, Value]:
        return dict(self.written.entries)


def load(directory: Path, size: int, name: str = "my model") -> Iterator[Pair]:
    tokenizer = read_tokenizer(directory, size)
    written = vocabulary(tokenizer, size)
    path = directory / "vocabulary.gguf"
    write_vocabulary_file(path, written, fitted_name(name, tokenizer))
    with LlamaVocabulary(path) as llama:
        yield Pair(tokenizer, written, llama)


def agree(pair: Pair, texts: Iterator[str] | tuple[str, ...]) -> None:
    for text in texts:
        assert pair.llama.tokenize(text) == pair.tokenizer.encode(text), repr(text)


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | changes), encoding="utf-8")


PUBLISHED = {
    "phi-4-mini": write_phi_4_mini,
    "phi-4": write_phi_4,
    "phi-3.5-mini": write_phi_3_5_mini,
}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp(request.param)
    size = PUBLISHED[request.param](directory)
    yield from load(directory, size)


@pytest.fixture(params=["bpe", "sentencepiece"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    write_tiny_tokenizer(tmp_path, SIZE, request.param)
    yield from load(tmp_path, SIZE)


# The same tokens


def test_parity_over_the_corpus(published: Pair) -> None:
    agree(published, PASSAGES)
    agree(published, ("\n\n".join(PASSAGES),))


def test_parity_over_random_text(published: Pair) -> None:
    agree(published, random_texts(400, seed=20))


def test_parity_around_every_special_token(published: Pair) -> None:
    for token in published.tokenizer.definition.added:
        text = token.text
        agree(published, (text, f"a{text}b", f"{text}{text}", f"x.{text}12345<|{text}|>é"))
        assert published.llama.tokenize(text) == [token.id]


def test_parity_over_a_chat(published: Pair) -> None:
    texts = {token.text for token in published.tokenizer.definition.added}
    if "<|im_sep|>" in texts:
        chat = (
            "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>2+2?\nAnd "
            "3+3?<|im_end|><|im_start|>assistant<|im_sep|>"
        )
    else:
        chat = "<|system|>Be brief.<|end|><|user|>2+2?\nAnd 3+3?<|end|><|assistant|>"
    agree(published, (chat, chat + "It's 4 and 6.<|endoftext|>"))


def test_parity_of_tiny_vocabularies(tiny: Pair) -> None:
    agree(tiny, PASSAGES)
    agree(tiny, random_texts(300, seed=21))
    for token in tiny.tokenizer.definition.added:
        agree(tiny, (f"a{token.text}b{token.text}",))


@pytest.mark.parametrize("writer", [write_phi_3_5_mini, None])
def test_phi_3_swallows_white_space_after_special_tokens(writer: Any, tmp_path: Path) -> None:
    size = SIZE
    if writer is None:
        write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    else:
        size = writer(tmp_path)
    chat = "<|system|>\n Be brief.<|end|>\n<|user|>\n\t hi there <|end|> \n<|assistant|>\n"
    for name in ("my model", "Phi 3.5 Mini Instruct"):
        for pair in load(tmp_path, size, name):
            agree(pair, (chat, "<s> x</s> y<unk> z<|endoftext|>  w", " <|user|> "))
    assert fitted_name("Phi 3.5 Mini Instruct", pair.tokenizer) == "Phi-3.5 Mini Instruct"
    path = tmp_path / "plain.gguf"
    write_vocabulary_file(path, pair.written, "my model")
    with LlamaVocabulary(path) as llama:  # the name is what does it
        assert llama.tokenize(chat) != pair.tokenizer.encode(chat)


@pytest.mark.parametrize("strips", [True, False])
def test_the_tokens_of_the_chat_template_decide(strips: bool, tmp_path: Path) -> None:
    """Twelve tokens that were added for a task outnumber Phi-3's own; none is in the template."""
    write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    own = [
        token | {"rstrip": strips and token["content"] not in NOT_STRIPPING}
        for token in document["added_tokens"]
    ]
    more = [added_token(SIZE - 3 + at, f"<tool_{at}>", rstrip=not strips) for at in range(12)]
    edit(path, added_tokens=[*own, *more])
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder={})
    chat = "<|system|>\n Be brief.<|end|>\n<|user|>\nhi there<|end|>\n<|assistant|>\n"
    for pair in load(tmp_path, SIZE + 12, "phi3-tools"):
        agree(pair, (chat,))
        assert pair.llama.tokenize("<tool_3> x") != pair.tokenizer.encode("<tool_3> x")
        assert any("white space after <tool_0>" in line for line in pair.written.deviations)


def test_a_name_like_phi_3_is_fatal_without_its_tokens(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE, "bpe")
    tokenizer = read_tokenizer(tmp_path, SIZE)
    write_vocabulary_file(tmp_path / "a.gguf", vocabulary(tokenizer, SIZE), "tiny-phi3")
    with pytest.raises(RuntimeError, match=r"unordered_map|_Map_base"):
        LlamaVocabulary(tmp_path / "a.gguf")
    assert fitted_name("tiny-phi3 Phi-3", tokenizer) == "tiny-phi 3 Phi 3"
    for pair in load(tmp_path, SIZE, "tiny-phi3"):
        agree(pair, PASSAGES[:3])


@pytest.mark.parametrize(
    ("kind", "name"), [("bpe", "clone-of-phi3"), ("sentencepiece", "plain"), ("bpe", "phi-4-mini")]
)
def test_whole_files_have_a_name_that_fits(kind: str, name: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / name, kind)
    write_gguf(checkpoint, tmp_path / "out", precision="int8")
    tokenizer = read_tokenizer(checkpoint.directory, SIZE)
    chat = "<|user|>\n hi there<|end|>\n<|assistant|>"
    with LlamaVocabulary(next((tmp_path / "out").glob("*.gguf"))) as llama:
        assert llama.tokenize(chat) == tokenizer.encode(chat)


DIGITS = {"type": "Digits", "individual_digits": True}
LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


def split(expression: str) -> dict[str, Any]:
    pattern = {"Regex": expression}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


STEPS = {
    (GPT_4_EXPRESSION,): [split(GPT_4_EXPRESSION), LEVEL],
    (GPT_4O_EXPRESSION,): [split(GPT_4O_EXPRESSION), LEVEL],
    (QWEN_2_EXPRESSION,): [split(QWEN_2_EXPRESSION), LEVEL],
    (GPT_2_EXPRESSION,): [LEVEL | {"use_regex": True}],
    (r"\p{N}", GPT_2_EXPRESSION): [DIGITS, LEVEL | {"use_regex": True}],
}


@pytest.mark.parametrize(("key", "name"), NAMES.items())
def test_every_named_pre_tokenizer_splits_alike(
    key: tuple[tuple[str, ...], bool], name: str, tmp_path: Path
) -> None:
    """A vocabulary with merges across every boundary shows each difference in splitting.

    GPT-4o's expression, which is known to be approximated, has one without merges between
    characters outside of ASCII.
    """
    expressions, ignore_merges = key
    write_tiny_tokenizer(tmp_path, 4096, "bpe")
    library = Library(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own = pre_tokenizers.Split(Regex(r"[^\x00-\x7f]"), "isolated")
    exact = GPT_4O_EXPRESSION not in expressions
    library.pre_tokenizer = level if exact else pre_tokenizers.Sequence([own, level])
    trainer = trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=level.alphabet(), show_progress=False
    )
    library.train_from_iterator(PASSAGES, trainer)
    path = tmp_path / "tokenizer.json"
    model = json.loads(library.to_str())["model"] | {"ignore_merges": ignore_merges}
    steps = {"type": "Sequence", "pretokenizers": STEPS[expressions]}
    added = [added_token(4090 + at, text) for at, text in enumerate(("<|endoftext|>", "<|end|>"))]
    edit(path, pre_tokenizer=steps, model=model, added_tokens=added)
    edit(tmp_path / "tokenizer_config.json", added_tokens_decoder={})
    edit(tmp_path / "generation_config.json", eos_token_id=None, bos_token_id=None)
    for pair in load(tmp_path, 4096):
        assert pair.entries["tokenizer.ggml.pre"] == name
        agree(pair, PASSAGES)
        if exact:
            agree(pair, random_texts(300, seed=22))


FINGERPRINTS = {
    "phi-4-mini": "ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e",
    "phi-4": "a8594e3edff7c29c003940395316294b2c623e09894deebbc65f33f1515df79e",
}
"""llama.cpp's converter calls these vocabularies gpt-4o and dbrx."""


@pytest.mark.parametrize("published", FINGERPRINTS, indirect=True)
def test_vocabularies_are_known_as_llamas_converter_knows_them(published: Pair) -> None:
    assert fingerprint(published.tokenizer) in FINGERPRINTS.values()
    name = published.entries["tokenizer.ggml.pre"]
    assert name in {"dbrx", "granite-embed-multi-97m"}


def test_the_converters_name_for_a_vocabulary_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Phi-2's vocabulary is GPT-2's by its splitting, and the same tokens go by either name."""
    write_tiny_tokenizer(tmp_path, SIZE, "bpe")
    steps = {"type": "Sequence", "pretokenizers": STEPS[(GPT_2_EXPRESSION,)]}
    edit(tmp_path / "tokenizer.json", pre_tokenizer=steps)
    for pair in load(tmp_path, SIZE):
        assert pair.entries["tokenizer.ggml.pre"] == "gpt-2"
        own = fingerprint(pair.tokenizer)
    (phi_2,) = CONVERTERS_NAMES["gpt-2"].values()
    monkeypatch.setitem(CONVERTERS_NAMES, "gpt-2", {own: phi_2})
    for pair in load(tmp_path, SIZE):
        assert pair.entries["tokenizer.ggml.pre"] == "phi-2"
        agree(pair, PASSAGES)
        agree(pair, random_texts(100, seed=23))


@pytest.mark.parametrize("published", ["phi-4-mini"], indirect=True)
def test_why_phi_4_mini_is_not_called_gpt_4o(published: Pair, tmp_path: Path) -> None:
    """The day this fails, llama.cpp has mended `gpt-4o`, and the table may say so."""
    renamed = published.entries | {"tokenizer.ggml.pre": "gpt-4o"}
    path = tmp_path / "gpt-4o.gguf"
    write_vocabulary_file(path, replace(published.written, entries=tuple(renamed.items())), "x")
    with LlamaVocabulary(path) as llama:
        for text in ("हिन्दी में लिखा हुआ", "กำลังเรียนรู้วรรณยุกต์", "اللُّغَة العَرَبِيَّة"):
            assert llama.tokenize(text) != published.tokenizer.encode(text)


# The same ends, and the rest of what llama.cpp reads


def test_llama_stops_at_the_ends_and_nowhere_else(published: Pair) -> None:
    special = published.tokenizer.special
    assert len(special.ends) >= 2
    # Phi-3 has Llama's </s>, which nothing in it produces; llama.cpp stops there by its text.
    pieces = published.tokenizer.definition.pieces
    unasked = {pieces.index("</s>")} if "</s>" in pieces else set()
    assert published.llama.ends() == set(special.ends) | unasked
    assert any("also stops" in line for line in published.written.deviations) is bool(unasked)


def test_llama_reads_the_roles(published: Pair) -> None:
    special, llama = published.tokenizer.special, published.llama
    assert llama.call("bos") == special.bos
    assert llama.call("eos") == special.eos
    assert llama.call("pad") == special.pad
    assert llama.call("eot") in special.ends
    assert bool(llama.call("get_add_bos")) is special.add_bos
    assert bool(llama.call("get_add_eos")) is special.add_eos


def test_the_vocabulary_is_padded_to_the_models(published: Pair) -> None:
    tokens = published.entries["tokenizer.ggml.tokens"]
    kinds = published.entries["tokenizer.ggml.token_type"]
    assert isinstance(tokens, tuple) and isinstance(kinds, tuple)
    assert published.llama.size == len(tokens) == len(kinds)
    for number, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
        pieces = published.tokenizer.definition.pieces
        used = number < len(pieces) and pieces[number] != ""
        assert (kind != 5) is used
        assert used or text == f"[PAD{number}]"


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_add_bos_is_honoured(kind: Any, tmp_path: Path) -> None:
    tiny = write_tiny_tokenizer(tmp_path, SIZE, kind)
    for adds in (True, False):
        edit(tmp_path / "tokenizer_config.json", add_bos_token=adds)
        for pair in load(tmp_path, SIZE):
            plain = pair.tokenizer.encode("hello")
            expected = [tiny.bos, *plain] if adds else plain
            assert pair.llama.tokenize("hello", add_special=True) == expected


def test_templates_are_carried_with_their_names(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    edit(tmp_path / "tokenizer_config.json", chat_template=named)
    entries = dict(vocabulary(read_tokenizer(tmp_path, SIZE), SIZE).entries)
    assert entries["tokenizer.chat_template"] == "D"
    assert entries["tokenizer.chat_template.tool_use"] == "T"
    assert entries["tokenizer.chat_templates"] == ("tool_use",)


OTHER_ENDS = ENDING_TEXTS.union(*FILL_IN_TEXTS) - {"<|end|>", "<|endoftext|>"}


@pytest.mark.parametrize("text", sorted(OTHER_ENDS))
def test_texts_at_which_llama_stops_are_foreseen(text: str, tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    edit(_added(tmp_path), **{text: SIZE - 1})
    for pair in load(tmp_path, SIZE):
        assert pair.llama.ends() == {*pair.tokenizer.special.ends, SIZE - 1}
        assert any(f"{text} ({SIZE - 1})" in line for line in pair.written.deviations)


def _added(directory: Path) -> Path:
    path = directory / "added_tokens.json"
    path.write_text("{}", encoding="utf-8")
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_ends_without_a_known_text_take_the_keys(count: int, tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    ends = list(range(100, 100 + count))
    edit(tmp_path / "generation_config.json", eos_token_id=ends)
    edit(tmp_path / "tokenizer_config.json", chat_template="{{ messages }}")
    for pair in load(tmp_path, SIZE):
        wanted = set(pair.tokenizer.special.ends)
        missing = wanted - pair.llama.ends()
        assert len(missing) == max(0, count - 2)
        stated = [line for line in pair.written.deviations if "does not stop" in line]
        assert len(stated) == bool(missing)


# What cannot be, is said


def test_published_deviations_are_all_stated(published: Pair) -> None:
    lines = published.written.deviations
    pieces = published.tokenizer.definition.pieces
    if "<s>" in pieces:
        assert len(lines) == 1 and "</s> (2)" in lines[0]
    elif "<|im_sep|>" in pieces:
        assert [line.split(" white space ")[1].split()[0] for line in lines] == ["after", "before"]
        assert published.llama.tokenize("<|im_sep|> a") != published.tokenizer.encode(
            "<|im_sep|> a"
        )
    else:
        assert len(lines) == 2
        for line, text in (
            ("upper from lower case", "чжсоЛакщбЕ"),
            ("white space after <|assistant|>", "<|end|> a"),
        ):
            assert any(line in stated for stated in lines)
            assert published.llama.tokenize(text) != published.tokenizer.encode(text)


def test_a_space_at_the_beginning_only(tmp_path: Path) -> None:
    """The form in which transformers 5 saves Llama tokenizers."""
    write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    edit(tmp_path / "tokenizer.json", normalizer=None, pre_tokenizer=meta)
    for pair in load(tmp_path, SIZE):
        agree(pair, ("<|user|>\nhi there<|end|>\n<|assistant|>",))
        assert pair.llama.tokenize("hi") != pair.tokenizer.encode("hi")
        assert any("very beginning" in line for line in pair.written.deviations)


def test_missing_merges_are_stated(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    path = tmp_path / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    edit(path, model=model | {"merges": model["merges"][:-1]})
    lines = vocabulary(read_tokenizer(tmp_path, SIZE), SIZE).deviations
    assert any("may merge 1 pair" in line for line in lines)


# What is refused


@pytest.mark.parametrize(
    "steps",
    [
        [split(r"\w+|\s+"), LEVEL],
        [split(GPT_4_EXPRESSION), DIGITS, LEVEL],
        [split(GPT_4_EXPRESSION) | {"behavior": "MergedWithNext"}, LEVEL],
        [{"type": "Whitespace"}, LEVEL],
        [LEVEL],
    ],
)
def test_an_unknown_splitting_is_named(steps: list[Any], tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    edit(tmp_path / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    tokenizer = read_tokenizer(tmp_path, SIZE)
    with pytest.raises(TokenizerError, match="no known pre-tokenizer") as caught:
        pre_tokenizer_name(tokenizer)
    for expression in tokenizer.definition.splitting:
        assert expression in str(caught.value)


def test_normalization_is_refused(tiny: Pair, tmp_path: Path) -> None:
    edit(tmp_path / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(TokenizerError, match="NFC"):
        vocabulary(read_tokenizer(tmp_path, SIZE), SIZE)


def test_a_space_before_byte_level_text_is_refused(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    steps = [LEVEL | {"use_regex": True, "add_prefix_space": True}]
    edit(tmp_path / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    with pytest.raises(TokenizerError, match="add_prefix_space"):
        vocabulary(read_tokenizer(tmp_path, SIZE), SIZE)


def test_missing_byte_tokens_are_refused(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    path = tmp_path / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    model["vocab"]["<0xZZ>"] = model["vocab"].pop("<0x41>")
    edit(path, model=model)
    with pytest.raises(TokenizerError, match="has 255"):
        vocabulary(read_tokenizer(tmp_path, SIZE), SIZE)


def test_a_token_that_looks_like_padding_is_refused(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, SIZE)
    edit(_added(tmp_path), **{f"[PAD{SIZE - 2}]": SIZE - 1})
    with pytest.raises(TokenizerError, match=rf"\[PAD{SIZE - 2}\]"):
        vocabulary(read_tokenizer(tmp_path, SIZE), SIZE)


def test_a_smaller_vocabulary_is_refused(tiny: Pair) -> None:
    with pytest.raises(TokenizerError, match="only 400"):
        vocabulary(tiny.tokenizer, 400)


def test_user_defined_pieces_with_spaces(tmp_path: Path) -> None:
    """An added token of several words is found in the text as it stands."""
    write_tiny_tokenizer(tmp_path, SIZE)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    added = [*document["added_tokens"], added_token(SIZE - 1, "two words", special=False)]
    edit(tmp_path / "tokenizer.json", added_tokens=added)
    for pair in load(tmp_path, SIZE):
        agree(pair, ("these two words here", "two wordstwo words", "two  words"))
