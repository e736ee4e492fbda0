"""Which tokens stop a generation in llama.cpp, and how a file can make it the right ones.

llama.cpp (`llama_vocab::impl::load` in src/llama-vocab.cpp, as of b11739) stops at the ids in
`eos_token_id`, `eot_token_id` and `eom_token_id`, and at every token whose text is in a fixed
list, whatever the file says. A checkpoint's set of ends is an arbitrary set of ids; so the ids
that the texts do not cover take the three keys, and what still differs is reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from phiquant.phi.tokenizer.special_tokens import END_OF_TURN, SpecialTokens

ENDING_TEXTS = frozenset(
    (
        *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<｜end▁of▁sentence｜>"),
        *("<|end|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>"),
        *("<EOT>", "_<EOT>", "[EOT]", "<end_of_utterance>", "[e~["),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>"),
    )
)
"""Every token with one of these texts stops a generation."""

FILL_IN_TEXTS = (
    frozenset(("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    frozenset(("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    frozenset(("<|file_sep|>",)),
)
"""Of each of these sets, one token stops too: padding and separators of code completion."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The keys to write, and how the runtime's stopping will differ from the checkpoint's."""

    keys: tuple[tuple[str, int], ...]
    unasked: tuple[int, ...]
    """Ids at which llama.cpp stops although the checkpoint does not."""
    unreachable: tuple[int, ...]
    """Ids at which the checkpoint stops and llama.cpp cannot be made to."""


def ends(pieces: Sequence[str], special: SpecialTokens) -> Ends:
    """Fit the checkpoint's ends into the three keys."""
    ids = {piece: number for number, piece in enumerate(pieces) if piece}
    by_text = set(_stopping_by_text(ids))
    wanted = set(special.ends)
    keys = {}
    if special.eos is not None:
        keys["eos_token_id"] = special.eos
    turn = next((ids[text] for text in END_OF_TURN if ids.get(text) in wanted), None)
    uncovered = sorted(wanted - by_text - {special.eos, turn})
    if turn is None and uncovered:
        turn = uncovered.pop(0)
    if turn is not None:
        keys["eot_token_id"] = turn
    if uncovered:
        keys["eom_token_id"] = uncovered.pop(0)
    if special.eos is None and uncovered:
        keys["eos_token_id"] = uncovered.pop(0)
    stopping = by_text | set(keys.values())
    return Ends(tuple(keys.items()), tuple(sorted(stopping - wanted)), tuple(uncovered))


def _stopping_by_text(ids: Mapping[str, int]) -> Iterator[int]:
    texts = {text for text in ENDING_TEXTS if text in ids}
    if ("<|call|>" in texts or "<|calls|>" in texts) and texts & {"<|return|>", "<|flush|>"}:
        texts.discard("<|end|>")  # there it ends a message, not the generation
    if "<|tool_response>" in texts:
        texts.discard("</s>")
    yield from (ids[text] for text in texts)
    for candidates in FILL_IN_TEXTS:
        present = sorted(ids[text] for text in candidates if text in ids)
        yield from present[:1]
