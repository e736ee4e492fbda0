"""What llama.cpp reported as errors, kept for messages."""

from typing import Any

CALLBACKS: list[Any] = []
"""llama.cpp calls the log callback for as long as the process lives, so none is ever freed."""

ERROR = 4
"""llama.cpp's GGML_LOG_LEVEL_ERROR."""
CONTINUED = 5
"""llama.cpp's GGML_LOG_LEVEL_CONT: more of the line before."""


class ErrorLog:
    """What llama.cpp logged as errors since the last `clear`.

    The first line names the cause; those after it tell which callers gave up in turn.
    """

    def __init__(self) -> None:
        self._first = ""
        self._open = False

    def take(self, level: int, text: bytes, _user: int | None = None) -> None:
        """llama.cpp's `ggml_log_callback`. It is called with every piece of the log; a piece may
        continue the line before it.
        """
        if level != CONTINUED:
            self._open = level == ERROR and not self._first
        if self._open:
            self._first += text.decode("utf-8", errors="replace")

    def clear(self) -> None:
        """Forget what was logged."""
        self._first = ""

    @property
    def cause(self) -> str:
        """The first error's line."""
        return self._first.strip() or "it logged no reason"
