"""llama.cpp's own chat template engine, as its server and its command line use it.

The C API has none: `llama_chat_apply_template` knows some published templates by their text. Of the
Python packages only `xllamacpp` holds the whole server. That sets signal handlers and a log for the
whole process, so it runs in a child, on this machine's own address, for the time of one question.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from phiquant.errors import ArtifactError
from phiquant.host.child import Answer, ask
from phiquant.targets.links import places_of

PROGRAM = Path(__file__).with_name("template_program.py")
SECONDS = 120.0
"""The server maps the whole model before it answers."""

CAUSE = re.compile(r"\b[Ee]rror: (?P<words>.+)")
"""How the engine's own words stand in the server's log."""


def render(file: Path, messages: Sequence[Mapping[str, str]]) -> str | None:
    """The prompt that llama.cpp makes of `messages` with the template in the GGUF file `file`.

    None if xllamacpp is not installed. Raises ArtifactError where the engine refuses the template;
    llama.cpp's server and command line then do not start with the file.
    """
    if find_spec("xllamacpp") is None:
        return None
    turns = [dict(message) for message in messages]
    request = {
        "file": str(file.absolute()),
        "readable": [str(place) for place in places_of(file)],
        "messages": turns,
        "key": secrets.token_hex(16),
    }
    answer = ask(PROGRAM, request, SECONDS)
    if answer.document is None or "prompt" not in answer.document:
        raise ArtifactError(f"llama.cpp does not render it: {_cause(answer)}")
    return str(answer.document["prompt"])


def _cause(answer: Answer) -> str:
    words = [match["words"].strip() for match in CAUSE.finditer(answer.messages)]
    return words[0] if words else answer.messages[-200:]
