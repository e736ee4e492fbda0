"""Texts on which tokenizers disagree: numbers, spaces, code, emoji, scripts, control characters.

Each line of a corpus is a text of its own. What a special token does to its neighbours (some
swallow the white space after them) is tried for every special token of the vocabulary.
"""

from collections.abc import Iterable, Iterator

STRESS = (
    "a",
    " a",
    "  a  b   c    d",
    "\n",
    "\n\n\n",
    "\t\tx\n\t\ty\r\n\r\nz",
    "trailing space ",
    "trailing spaces   \n",
    " \n \n  \n",
    "1 12 123 1234 12345 123456 1234567 12345678901234567890",
    "3.14159, -2.5e-10, 0x1F, 1_000_000, 50%, $9.99, 1/2, 10:30",
    "I'm you're he'll they'd we've it's CAN'T DON'T O'Neill 'quoted'",
    "camelCase snake_case SCREAMING_CASE kebab-case HTTPServer2Go",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if v != 0}\n",
    "if (a && b || !c) { x->y[i] <<= 2; } // done\n#include <a.h>",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org ../up/one",
    "\\begin{align} \\alpha &= \\frac{1}{2} \\\\ \\end{align}",
    "!!! ... ??? --- ___ *** ~~~ ((())) [[[]]] <<>> ``` ''' \"\"\"",
    "naïve café Ångström Größe señor œuvre Dvořák İstanbul ĳ ﬁ ﬂ",
    "e\u0301 n\u0303 a\u0300\u0301 (combining)",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "זהו משפט בעברית, עם מספר 42.",
    "هذه جملة بالعربية، مع الرقم ٤٢.",
    "यह हिन्दी में एक वाक्य है।",
    "ประโยคภาษาไทยไม่มีช่องว่าง",
    "我们在这里测试中文分词。日本語の文も、ここにあります。한국어 문장도 있습니다.",
    "👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 👋🏽 ☺️ ❤️‍🔥 🫠",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𒀀 𓀀 (beyond the basic plane)",
    "zero\u200bwidth\u200djoin\u00a0nbsp\u3000ideographic\u2028line\ufeffbom",
    "tab\tbell\x07escape\x1bdelete\x7fnext\x85",
    "a\u0000b",
    "ᚠᛇᚻ ⠓⠑⠇⠇⠕ ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ≤ ∞ ½ ² ™ € £ ¥",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 70,
    " " * 33 + "x" + " " * 17 + "y",
    "▁ under▁score ▁▁ <0x0A> <s> </s> <unk> [INST] <|notatoken|>",
)


def tight(special: Iterable[str]) -> Iterator[str]:
    """Texts with every special token, without white space beside it."""
    tokens = list(special)
    for token in tokens:
        yield token
        yield f"a{token}b"
    yield "".join(tokens)


def spaced(special: Iterable[str]) -> Iterator[str]:
    """Texts with every special token between spaces and line ends."""
    for token in special:
        yield f"a {token} b {token}\n{token}\n\n b"
