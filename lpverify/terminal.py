"""A line on a terminal that is redrawn in place; light, as it is needed before anything else is imported."""

import os
import threading
from typing import TextIO

CLEAR = "\r\x1b[K"
USUAL_COLUMNS = 80  # where the terminal does not tell


class TerminalLine:
    """Redraws one line until it is closed; safe from any thread. Where there is no terminal it does nothing.

    Attributes:
        enabled: Whether it is shown.
    """

    def __init__(self, stream: TextIO | None, wanted: bool) -> None:
        self.stream = stream
        self.enabled = wanted and stream is not None and stream.isatty()
        self._lock = threading.Lock()

    def text(self) -> str:
        """What is shown."""
        raise NotImplementedError

    def draw(self) -> None:
        """Shows the text as it is now, until `close`."""
        with self._lock:
            if self.enabled:
                self._write(CLEAR + self.text()[: self.columns() - 1])

    def close(self) -> None:
        """Removes the line for good."""
        with self._lock:
            if self.enabled:
                self._write(CLEAR)
            self.enabled = False

    def columns(self) -> int:
        """How wide the terminal is."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or USUAL_COLUMNS  # type: ignore[union-attr]
        except (OSError, ValueError):
            return USUAL_COLUMNS

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)  # type: ignore[union-attr]
            self.stream.flush()  # type: ignore[union-attr]
        except (OSError, ValueError):
            self.enabled = False
