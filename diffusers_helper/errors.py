"""What can go wrong, as codes with values.

The engine speaks no language: whoever shows an error to a person looks its code up in `locales/`.
"""


class EngineError(Exception):
    """A failure that a person can act on.

    `code` names the sentence (`locales/*.json`, key `error.<code>`), `values` fill its placeholders.
    """

    def __init__(self, code: str, /, **values: object) -> None:
        self.code = code
        self.values = values
        details = ", ".join(f"{key}={value!r}" for key, value in values.items())
        super().__init__(f"{code}: {details}" if details else code)


class InputError(EngineError):
    """What was given cannot be used: a request, a picture, a models folder, an output folder."""


class MachineError(EngineError):
    """The input was fine, the machine was not up to it: disk full, out of memory, numbers gone wrong."""


class StopRequested(Exception):  # noqa: N818  (an ordinary outcome, not an error)
    """Raised inside the engine between two steps after somebody asked to stop."""
