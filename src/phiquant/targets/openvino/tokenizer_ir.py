"""Tokenizer and detokenizer as OpenVINO models, from a parsed tokenizer.json.

openvino_tokenizers' converter wants a tokenizer object of transformers; its building blocks, the
steps of a `TokenizerPipeline`, want nothing but values. Here they are put together from our own
reading of the files, and the result is proved against the tokenizers library before anything is
written (`check_parity`), because not every feature of a tokenizer.json has a block.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from phiquant.errors import MissingDependency, PhiquantError, TokenizerError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.byte_letters import piece_bytes
from phiquant.phi.tokenizer.splitting import SPACE, SpacePrefix, flat
from phiquant.phi.tokenizer.template_white_space import explicit_white_space
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.tokenizer.tokenizer_json import TokenizerKind
from phiquant.targets.openvino.signal_stack import kept_signal_stack
from phiquant.targets.tokenizer_files import left_out_templates

LONGEST = 2**31 - 1

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces, a\ttab,\n\nlines and trailing blanks   ",
    "I'm sure we've 12345 apples & 3.14 pies; they'LL see!",
    "def f(x):\n    return x ** 2  # a comment\n",
    "Größe, naïve, Привет мир, 你好世界, こんにちは, 안녕하세요, مرحبا",
    "emoji 🙂👩‍👩‍👧 and symbols ≤ ∑ → ½",
    "x",
    " ",
)
"""Texts that go through tokenizer and detokenizer before they are written."""


@dataclass(frozen=True, slots=True)
class TokenizerModels:
    """Two openvino.Models: strings to ids with a mask, and ids to strings."""

    tokenizer: Any
    detokenizer: Any


def _blocks() -> Any:  # noqa: ANN401 (a module without types)
    try:
        from openvino_tokenizers import tokenizer_pipeline
    except ImportError as error:
        raise MissingDependency(
            "openvino-tokenizers", "making an OpenVINO artifact's tokenizer"
        ) from error
    return tokenizer_pipeline


def proved_tokenizer(checkpoint: Checkpoint) -> TokenizerModels:
    """The models for the checkpoint's tokenizer, which agree with the tokenizers library.

    Raises TokenizerError or MissingDependency.
    """
    _blocks()
    try:
        models = build_tokenizer(checkpoint.tokenizer)
        check_parity(models, checkpoint.tokenizer)
    except PhiquantError:
        raise
    except Exception as error:  # OpenVINO raises nothing more specific for a step that will not do
        words = str(error).strip().splitlines()[-1:]
        raise TokenizerError(
            f"openvino_tokenizers cannot make a model of tokenizer.json ({words}); choose another "
            "target"
        ) from error
    return models


def build_tokenizer(tokenizer: Tokenizer) -> TokenizerModels:
    """The models for `tokenizer`; TokenizerError for what openvino_tokenizers has no block for."""
    from openvino import Type
    from openvino_tokenizers import utils

    blocks = _blocks()
    pipeline = blocks.TokenizerPipeline()
    pipeline.add_steps(list(_encoding_steps(blocks, tokenizer)))
    pipeline.vocab = list(tokenizer.definition.pieces)
    pipeline.add_steps(list(_framing_steps(blocks, tokenizer)))
    pipeline.add_steps(list(_decoding_steps(blocks, tokenizer)))
    encoder = utils.change_outputs_type(pipeline.get_tokenizer_ov_subgraph(), Type.i64)
    decoder = utils.change_inputs_type(pipeline.get_detokenizer_ov_subgraph(), Type.i64)
    for model in (encoder, decoder):
        _describe(model, tokenizer)
    return TokenizerModels(encoder, decoder)


def _encoding_steps(blocks: Any, tokenizer: Tokenizer) -> Iterator[Any]:  # noqa: ANN401
    definition = tokenizer.definition
    unknown = [name for name in definition.normalizer if name not in ("NFC", "NFKC", "NFD", "NFKD")]
    if unknown or any(rule.startswith("<") for rule in definition.splitting):
        missing = ", ".join([*unknown, *(r for r in definition.splitting if r.startswith("<"))])
        raise TokenizerError(
            f"openvino_tokenizers is given no step for {missing}; choose another target"
        )
    yield blocks.SpecialTokensSplit(
        [blocks.SpecialToken(token.text, token.lstrip, token.rstrip) for token in definition.added]
    )
    for name in definition.normalizer:
        yield blocks.NormalizeUnicode(name)
    if definition.kind is TokenizerKind.SENTENCEPIECE:
        yield from _space_steps(blocks, definition.space_prefix)
    elif definition.space_prefix is not SpacePrefix.NEVER:
        yield blocks.RegexNormalizationStep.add_prefix_whitespace_regex()
    for expression in definition.splitting:
        yield blocks.RegexSplitStep(expression, False, "isolate", mergeable=False)
    model = tokenizer.parsed["model"]
    byte_level = definition.kind is TokenizerKind.BYTE_LEVEL
    yield blocks.BPETokenizationStep(
        vocab=_vocabulary(tokenizer),
        merges=_merges(tokenizer),
        unk_token=model.get("unk_token") or "",
        fuse_unk=bool(model.get("fuse_unk")),
        byte_fallback=bool(model.get("byte_fallback")),
        cache_capacity=max(len(definition.pieces) // 5, 20_000),
        added_tokens={
            token.text.encode() if byte_level else token.text: token.id
            for token in definition.added
        },
    )


def _space_steps(blocks: Any, prefix: SpacePrefix) -> Iterator[Any]:  # noqa: ANN401
    if prefix is not SpacePrefix.NEVER:
        yield blocks.RegexNormalizationStep.prepend_regex(SPACE)
    yield blocks.RegexNormalizationStep.replace_spaces_metaspace(SPACE)


def _vocabulary(tokenizer: Tokenizer) -> list[bytes] | list[str]:
    """What the pieces stand for, by id: bytes where the tokenizer is byte-level.

    What can only be an added token, or no token, gets a text that no input can be.
    """
    pieces = tokenizer.definition.pieces
    if tokenizer.kind is TokenizerKind.BYTE_LEVEL:
        return [piece_bytes(piece) or b"" for piece in pieces]
    return [piece or f"\0{number}" for number, piece in enumerate(pieces)]


def _merges(tokenizer: Tokenizer) -> list[tuple[bytes, bytes]] | list[tuple[str, str]]:
    merges = tokenizer.definition.merges
    if tokenizer.kind is TokenizerKind.BYTE_LEVEL:
        halves = {half: piece_bytes(half) or b"" for half in chain.from_iterable(merges)}
        return [(halves[left], halves[right]) for left, right in merges]
    return list(merges)


def _framing_steps(blocks: Any, tokenizer: Tokenizer) -> Iterator[Any]:  # noqa: ANN401
    special, pieces = tokenizer.special, tokenizer.definition.pieces
    parts = [blocks.Sequence()]
    if special.add_bos and special.bos is not None:
        parts.insert(0, blocks.AddToken(token=pieces[special.bos], _token_id=special.bos))
    if special.add_eos and special.eos is not None:
        parts.append(blocks.AddToken(token=pieces[special.eos], _token_id=special.eos))
    yield blocks.TruncationStep(max_length=LONGEST - len(parts) + 1)
    yield blocks.CombineSegmentsStep(parts, add_special_tokens=True)
    pad = special.pad if special.pad is not None else special.eos or 0
    # Generation continues at the right end, so a batch is padded on the left.
    yield blocks.PaddingStep(token=pieces[pad], _token_id=pad, pad_right=False)


def _decoding_steps(blocks: Any, tokenizer: Tokenizer) -> Iterator[Any]:  # noqa: ANN401
    definition = tokenizer.definition
    byte_level = definition.kind is TokenizerKind.BYTE_LEVEL
    yield blocks.VocabDecoderStep(
        vocab=_decoded_pieces(tokenizer) if byte_level else None,
        skip_tokens=[token.id for token in definition.added if token.special],
        do_skip_tokens=True,
    )
    if byte_level:
        yield blocks.FuseStep()
    else:
        known = {
            "Replace": blocks.RegexDecodingStep.parse_replace_dict,
            "Strip": blocks.RegexDecodingStep.parse_strip_dict,
            "ByteFallback": lambda step: blocks.ByteFallbackStep(),
            "Fuse": lambda step: blocks.FuseStep(),
        }
        for step in flat(tokenizer.parsed.get("decoder"), "decoders"):
            if step["type"] not in known:
                raise TokenizerError(
                    f"openvino_tokenizers has no step for the decoder {step['type']}; choose "
                    "another target"
                )
            yield known[step["type"]](step)
    yield blocks.UTF8ValidateStep(mode=_replacing())


def _replacing() -> Any:  # noqa: ANN401
    from openvino_tokenizers.constants import UTF8ReplaceMode

    return UTF8ReplaceMode.REPLACE


def _decoded_pieces(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of every id of a byte-level tokenizer; None if the vocabulary has them."""
    definition = tokenizer.definition
    plain = {token.id for token in definition.added}
    odd = [
        number
        for number, piece in enumerate(definition.pieces)
        if number not in plain and piece_bytes(piece) is None
    ]
    if not odd:
        return None
    return [
        piece.encode() if number in plain else piece_bytes(piece) or piece.encode()
        for number, piece in enumerate(definition.pieces)
    ]


def _describe(model: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401
    """What openvino_genai reads from a tokenizer's `rt_info`."""
    from openvino_tokenizers import utils

    utils.update_rt_info_with_environment(model)
    special = tokenizer.special
    for key, number in (("bos", special.bos), ("eos", special.eos), ("pad", special.pad)):
        if number is not None:
            model.set_rt_info(number, f"{key}_token_id")
    if special.chat_template is not None:
        model.set_rt_info(explicit_white_space(special.chat_template), "chat_template")
    single = [-1]
    if special.add_bos and special.bos is not None:
        single.insert(0, special.bos)
    if special.add_eos and special.eos is not None:
        single.append(special.eos)
    pair = [*single, *(number for number in single if number != special.bos)]
    processor = {
        name: {"ids": ids, "type_ids": [0] * len(ids)}
        for name, ids in (("single", single), ("pair", pair))
    }
    model.set_rt_info(json.dumps(processor), "processed_post_processor_template")


def check_parity(
    models: TokenizerModels, tokenizer: Tokenizer, samples: Sequence[str] = SAMPLES
) -> None:
    """Raise TokenizerError where the models disagree with the tokenizers library."""
    import openvino

    with kept_signal_stack():
        core = openvino.Core()
        encode, decode = (
            core.compile_model(model, "CPU") for model in (models.tokenizer, models.detokenizer)
        )
    added = [token.text for token in tokenizer.definition.added]
    framed = [f"{added[0]}one{added[-1]} two {added[len(added) // 2]}"] if added else []
    before, after = _frame(tokenizer)
    for text in (*samples, *framed):
        expected = [*before, *tokenizer.encode(text), *after]
        tokens = encode([text])["input_ids"][0].tolist()
        if tokens != expected:
            raise TokenizerError(
                f"openvino_tokenizers makes {tokens[:12]} of {text[:40]!r}, and the tokenizers "
                f"library {expected[:12]}; this tokenizer cannot be represented, choose another "
                "target"
            )
        plain = tokenizer.encode(text)
        shown = str(decode(np.array([plain], np.int64))[0][0])
        if text in samples and shown != tokenizer.decode(plain):
            raise TokenizerError(
                f"openvino_tokenizers reads {shown[:40]!r} where the tokenizers library reads "
                f"{tokenizer.decode(plain)[:40]!r}; choose another target"
            )


def deviations(tokenizer: Tokenizer) -> tuple[str, ...]:
    """What the models are known to read otherwise, or do without, a sentence each."""
    missing = left_out_templates(tokenizer.special)
    if tokenizer.kind is not TokenizerKind.SENTENCEPIECE:
        return missing
    return (
        *missing,
        "openvino_tokenizers takes a byte token that is spelt out in the text, such as <0x41>, "
        "for the byte",
    )


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    special = tokenizer.special
    before = [special.bos] if special.add_bos and special.bos is not None else []
    after = [special.eos] if special.add_eos and special.eos is not None else []
    return before, after
