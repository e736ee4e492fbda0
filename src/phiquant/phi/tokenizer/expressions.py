"""The regular expressions by which the tokenizers of the family and of its kin split text.

They are known to come to an end on any text. An expression is a program: one by another hand may
try every way to split a line, which takes longer than anyone waits, in whatever engine runs it.
"""

GPT_2_EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What a `ByteLevel` step with `use_regex` splits by."""

GPT_4_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Phi-4 (14B) and its reasoning variants, after GPT-4's cl100k_base."""

GPT_4O_EXPRESSION = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Phi-4-mini, after GPT-4o's o200k_base."""

QWEN_2_EXPRESSION = GPT_4_EXPRESSION.replace(r"\p{N}{1,3}", r"\p{N}")

ALL_TEXT_EXPRESSION = r"[\s\S]+"
"""Splits nothing: for a runtime that would split otherwise."""

KNOWN = frozenset(
    (
        GPT_2_EXPRESSION,
        GPT_4_EXPRESSION,
        GPT_4O_EXPRESSION,
        QWEN_2_EXPRESSION,
        ALL_TEXT_EXPRESSION,
        r"\p{N}",
        r"\p{N}+",
        r"\p{N}{1,3}",
    )
)
