"""A stream that takes itself for a terminal."""

import io


class Terminal(io.TextIOWrapper):
    """A stream that takes itself for a terminal and keeps what is written."""

    def __init__(self, encoding: str = "utf-8", is_terminal: bool = True):
        super().__init__(io.BytesIO(), encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)
