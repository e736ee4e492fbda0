"""The program that renders one chat template as transformers does: run by `rendering`.

stdin: {"template", "messages", "tokens", "most" characters, "seconds" to compute}; stdout: {"text"}
or {"obstacle"}. The environment is that of transformers' `_cached_compile_jinja_template`
(chat_template_utils.py, 5.23): sandboxed, with blocks trimmed, `tojson` that does not escape HTML,
loop controls, and `{% generation %}`, which marks text and changes none.
"""

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from phiquant.host.confinement import confine
from phiquant.host.limits import die_with, limit_resources

MEMORY = 1 << 28
"""Bytes that the process may have, where the system can limit them."""


class _TooLongError(Exception):
    """The text goes on beyond the limit."""


def main() -> None:
    """Read the request, render, print the answer."""
    request = json.load(sys.stdin)
    die_with(os.getppid())
    limit_resources(MEMORY, request["seconds"])
    confine(())
    try:
        answer = {"text": _render(request)}
    except MemoryError:
        answer = {"obstacle": f"it took more than {MEMORY >> 20} MiB"}
    except Exception as error:  # whatever a program by another hand raises
        answer = {"obstacle": f"{type(error).__name__}: {error}"[:300]}
    json.dump(answer, sys.stdout)


def _render(request: Mapping[str, Any]) -> str:
    template = _environment().from_string(request["template"])
    pieces = []
    size = 0
    for piece in template.generate(
        messages=request["messages"],
        tools=None,
        documents=None,
        add_generation_prompt=True,
        **request["tokens"],
    ):
        pieces.append(piece)
        size += len(piece)
        if size > request["most"]:
            raise _TooLongError(f"it writes more than {request['most']} characters")
    return "".join(pieces)


def _environment() -> Any:  # noqa: ANN401 (jinja2 is imported in the child alone)
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Takes the block for what is in it."""

        tags = {"generation"}  # noqa: RUF012 (the library's own form)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: ANN401
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


if __name__ == "__main__":
    main()
