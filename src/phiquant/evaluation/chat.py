"""A chat prompt that the model was trained on, from the special tokens that its vocabulary has.

Chat templates are programs that come with a model, and those are never run here. For a prompt
of one question the published formats come to a few strings, told apart by their special tokens.
White space between the parts is left out: Phi-3's own tokens swallow it, Phi-4 has none.
"""

from collections.abc import Collection

QUESTION = "Explain in one sentence why the sky is blue."

FORMATS = (
    # Phi-4
    (
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|im_start|>user<|im_sep|>{}<|im_end|><|im_start|>assistant<|im_sep|>",
    ),
    # ChatML (SmolLM2)
    (
        ("<|im_start|>", "<|im_end|>"),
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    ),
    # Phi-3, Phi-3.5, Phi-4-mini
    (
        ("<|user|>", "<|end|>", "<|assistant|>"),
        "<|user|>{}<|end|><|assistant|>",
    ),
)
"""The special tokens that tell a format, and the prompt for a question."""


def chat_prompt(question: str, special: Collection[str]) -> str:
    """The prompt for `question`; the question itself where no known format fits."""
    for tokens, form in FORMATS:
        if all(token in special for token in tokens):
            return form.format(question)
    return question
