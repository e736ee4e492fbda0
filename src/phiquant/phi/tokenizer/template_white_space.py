r"""A chat template whose white space means the same to every template engine.

Transformers renders with Jinja's `trim_blocks` and `lstrip_blocks`: the line end after a block is
dropped, and so are the blanks before a block that begins its line. Not every runtime's engine does
so: onnxruntime-genai keeps both, openvino_genai drops blanks before an expression too, and neither
knows Jinja's `+%}` or `{% raw %}`. So a template is restated: what transformers drops is dropped,
and what it keeps beside a tag becomes an expression of its own, `{{ '\n' }}`, that no engine trims.
Comments and the signs of white space control go.

The rules are those of Jinja 3.1 (Lexer.tokeniter in jinja2/lexer.py).
"""

import re
from collections.abc import Iterator

OPENING = re.compile(
    r"(?P<text>.*?)(?:\{%(?P<raw_sign>[-+]?)\s*raw\s*(?P<raw>-%\}\s*|%\})"
    r"|\{(?P<kind>[{%#])(?P<sign>[-+]?))",
    re.DOTALL,
)
"""Text, and the tag that ends it: a raw block's first half, or a tag's opening."""

RAW_END = re.compile(
    r"(?P<text>.*?)\{%(?P<sign>[-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)", re.DOTALL
)
CLOSING = {
    "%": re.compile(r"\+%\}|-%\}\s*|%\}\n?"),
    "{": re.compile(r"-\}\}\s*|\}\}"),
    "#": re.compile(r"\+#\}|-#\}\s*|#\}\n?"),
}
"""By kind of tag: its end, with the white space after it that is dropped."""

TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.""", re.DOTALL)
"""What is passed over at a time within a tag: a string, or a character."""

ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"})


class _UnclosedTagError(Exception):
    """A tag without an end: the template is broken, which its own engine is to tell."""


def plain_line_ends(template: str) -> str:
    """`template` with line feeds alone, as Jinja reads any line end."""
    return re.sub(r"\r\n?", "\n", template)


def explicit_white_space(template: str) -> str:
    """`template` restated; one with a tag that is never closed is returned as it is."""
    try:
        return "".join(_restated(plain_line_ends(template).removesuffix("\n")))
    except _UnclosedTagError:
        return template


def _restated(source: str) -> Iterator[str]:
    position = 0
    while opening := OPENING.match(source, position):
        starts_line = position == 0 or source[position - 1] == "\n"
        kind, sign = opening["kind"], opening["sign"] or opening["raw_sign"]
        yield _edged(_trimmed(opening["text"], sign, starts_line, blocks=kind != "{"))
        position = opening.end()
        if opening["raw"]:
            end = RAW_END.match(source, position)
            if end is None:
                raise _UnclosedTagError
            starts_line = source[position - 1] == "\n"
            yield _expression(_trimmed(end["text"], end["sign"], starts_line))
            position = end.end()
        elif kind == "#":
            position = _end(CLOSING["#"].search(source, position))
        else:
            first, position = position, _tag_end(source, position, kind)
            yield _tag(source[first:position], kind)
    yield _edged(source[position:])


def _trimmed(text: str, sign: str | None, starts_line: bool, blocks: bool = True) -> str:
    """What is left of the text before a tag with `sign` in front.

    `starts_line`: the text is the first of its line; `blocks`: the tag is no expression.
    """
    if sign == "-":
        return text.rstrip()
    line = text.rfind("\n") + 1
    if blocks and sign != "+" and (line > 0 or starts_line) and not text[line:].strip():
        return text[:line]
    return text


def _tag_end(source: str, position: int, kind: str) -> int:
    """Where the tag that is open at `position` has ended; brackets within it hide its end."""
    depth = 0
    while depth > 0 or not CLOSING[kind].match(source, position):
        token = TOKEN.match(source, position)
        if token is None or token[0] in "'\"":  # the source's end, or a string without one
            raise _UnclosedTagError
        position = token.end()
        depth += (token[0] in "([{") - (token[0] in ")]}")
    return _end(CLOSING[kind].match(source, position))


def _end(match: re.Match[str] | None) -> int:
    if match is None:
        raise _UnclosedTagError
    return match.end()


def _tag(content: str, kind: str) -> str:
    """A tag of which `content` is all after the opening, without signs of white space control."""
    end = "}}" if kind == "{" else "%}"
    content = content.rstrip().removesuffix(end)
    content = content.removesuffix("-") if kind == "{" else re.sub(r"[-+]$", "", content)
    space = " " if content[:1] in ("-", "+") else ""
    return f"{{{kind}{space}{content}{end}"


def _edged(text: str) -> str:
    """Text for a template; what is at its edges becomes an expression: white space, and braces
    that would open a tag with what follows.
    """
    body = text.lstrip()
    end = len(body)
    while end > 0 and (body[end - 1] == "{" or body[end - 1].isspace()):
        end -= 1
    before = text[: len(text) - len(body)]
    return _expression(before) + body[:end] + _expression(body[end:])


def _expression(text: str) -> str:
    """Text as an expression; nothing for no text."""
    return f"{{{{ '{text.translate(ESCAPES)}' }}}}" if text else ""
