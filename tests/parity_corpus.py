"""Text on which tokenizers tend to disagree, for parity between a library and a runtime.

A list of passages rather than a text file, so that white space and control characters are plain
to see and survive editors. `random_texts` adds seeded strings from the same alphabets.
"""

import random
from collections.abc import Iterator

PASSAGES = (
    # Prose and contractions, in all cases.
    "The quick brown fox jumps over the lazy dog. It's what they'd've said; we're sure I'll go.",
    "IT'S WHAT THEY'D SAY: WE'RE SURE, I'LL GO, YOU'VE SEEN, I'M HERE. it'S, we'RE, i'Ll, y'all's",
    "rock ’n’ roll — it’s “quoted” ‘twice’ … and ''doubled'' quotes, `ticks`, 'd 's 't 're",
    "camelCase PascalCase snake_case SCREAMING_SNAKE kebab-case HTMLParserV2 iPhone12Pro McDonald",
    "naïve café résumé Größe Straße ÉCOLE École œuvre Ærø coöperate ﬁne ǅungla ǆ Ǆ ŉ ı İ",
    "приветМир ПРИВЕТмир Ёлка ёж съешь же ещё этих мягких французских булок, да выпей чаю",
    "Αθήνα ΑΘΗΝΑ άλφα Ώρα Ελλάδα; τι κάνεις; ΟΔΥΣΣΕΥΣ ὀδυσσεύς",
    # Numbers.
    "0 1 12 123 1234 12345 123456 1234567890123456789012345678901234567890",
    "3.14159e-10 1,234,567.89 -17 +42 2024-02-29T23:59:60Z 192.168.0.1 1/2 50/50 12:30",
    "0x1F 0b1011 1_000_000 10% $5.00 €7,50 ¥100 ½ ¾ ² ³ Ⅻ ① ٣٤٥ १२३४ ๑๒๓ 1st 2nd v1.2.3-rc4",
    "0000000000000000000000000000000 9999999999999999 a1b2c3d4 1a 22bb 333ccc 4444dddd",
    # Code.
    "def f(x: int = 0) -> list[int]:\n    return [y ** 2 for y in range(x) if y % 2 != 0]\n\n\n",
    '\tif (a && b || !c) {\n\t\tprintf("%d\\n", x->y[3]);\t// comment\r\n\t}\r\n#include <stdio.h>',
    "SELECT * FROM t WHERE a <> 'b' AND c >= 10; -- $1, @var, ::text",
    '<a href="x?y=1&z=2">&nbsp;</a>',
    "https://example.org/path/to/file.html?query=value#frag C:\\Users\\me\\x.txt",
    "../../etc ~/.bashrc $HOME/bin:/usr/bin *.py",
    '{"key": [1, 2.5, null, true], "nested": {"a": "\\u00e9"}}///***---===+++>>><<<@@@###$$$%%%',
    # White space.
    "a b  c   d    e     f      g        h                h\ti\t\tj\t\t\tk \t l\t m",
    "\n\n\n a\n \n  \n\t\n b \n\n c  \r\n\r\n d\r e \n",
    "   leading",
    "trailing   ",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " \n ",
    "\n ",
    "x \n",
    "nbsp\u00a0\u00a0thin\u2009em\u2003ideographic\u3000zero\u200bwidth\u2060joiner\ufeffbom",
    "line\u2028separator\u2029paragraph\x85next\x0bvertical\x0cform",
    # Control characters.
    "nul-free controls: \x01\x02\x07\x08\x1b[0m\x7f\x80\x9f end",
    # Scripts.
    "量子化された重みは小さい。これは文です。カタカナとひらがな、漢字ｶﾅ",
    "机器学习模型的量化可以减少内存占用，同时保持精度。「你好」！？《书》——……",
    "양자화된 가중치는 작습니다. 한국어 문장입니다. ㅋㅋㅋ ㅠㅠ",
    "النص العربي من اليمين إلى اليسار، مع تَشْكِيلٍ كامِلٍ وأرقام ١٢٣.",
    "טקסט בעברית עם נִקּוּד, מימין לשמאל.",
    "हिन्दी में लिखा हुआ एक वाक्य, जिसमें संयुक्ताक्षर और मात्राएँ हैं। क्षत्रिय ज्ञान",
    "বাংলা লেখা তামিল: தமிழ் எழுத்து తెలుగు ಕನ್ನಡ മലയാളം ਪੰਜਾਬੀ ગુજરાતી සිංහල",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ กำลังเรียนรู้วรรณยุกต์ ๆ ฯลฯ",
    "ລາວ ខ្មែរ မြန်မာ བོད་ཡིག ქართული հայերեն አማርኛ Tiếng Việt có dấu",
    "decomposed: e\u0301 a\u0308 n\u0303 o\u0302\u0323 ",
    "Z\u0351\u036f\u0343a\u0325\u0321l\u0363g\u0330o",
    # Symbols, emoji, joiners.
    "🙂 👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇫🇷🇯🇵 ❤️ ☎️ 1️⃣ #️⃣ 👨🏿\u200d💻 text🙂text🙂🙂🙂",
    "∀x∈ℝ: ∃ε>0, √2≈1.414 ∫f(x)dx ≤ ∞ ⟨ψ|φ⟩ αβγδ ℵ₀ H₂O x² → ⇒ ↦ ■□▲△ ©®™ §¶ †‡",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𒀀 𓀀 😀\U0001f9ff\U000e0067\U0010fffd",
    "\u0301leading mark \u200dzwj \u200eltr \u202erlo\u202c \ufffd \ue000 \U0002f800",
)

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    " ",
    " \t\n\r",
    "'’\".,;:!?-_/\\|()[]{}<>@#$%^&*+=~`",
    "éèêëàçñöüßøåæÉÈÀÇÑÖÜ",
    "абвгдежзАБВГДЕЖЗ",
    "αβγδΑΒΓΔ",
    "量子化机器学习模型",
    "ひらがなカタカナ",
    "한국어문장",
    "ابتثجحخ",
    "अआइकखगािीुू्ं",
    "กขคงจัิีึื่้",
    "🙂👍❤️🏽\u200d\u20e3",
    "\u0300\u0301\u0302\u0323",
    "²³½ⅫⅣ①٣१",
    "\u00a0\u2009\u3000",
    "∀∈√≤∞→",
    "𝔘𝟙𐍈",
)

CONTRACTIONS = ("'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "▁", "<|", "|>", "<0x41>", "<s", "/s>")


def random_texts(count: int, seed: int) -> Iterator[str]:
    """`count` strings of up to forty runs of a few characters each."""
    generator = random.Random(seed)
    for _ in range(count):
        runs = []
        for _ in range(generator.randint(1, 40)):
            if generator.random() < 0.1:
                runs.append(generator.choice(CONTRACTIONS))
            else:
                alphabet = generator.choice(ALPHABETS)
                runs.append("".join(generator.choices(alphabet, k=generator.randint(1, 6))))
        yield "".join(runs)
