"""A request to stop that can be taken back until somebody has seen it. Knows no job."""

import threading


class StopRequest(threading.Event):
    """The event by which a running job is asked to stop: what has asked whether it is set, and was told so,
    will stop, so that nothing takes it back any more."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.Lock()
        self.is_seen = False

    def is_set(self) -> bool:
        with self._guard:
            self.is_seen = super().is_set()
            return self.is_seen

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        return self.is_set()

    def take_back(self) -> bool:
        """Withdraw the request; False where it was seen, and is being followed."""
        with self._guard:
            if not self.is_seen:
                self.clear()
            return not self.is_seen
