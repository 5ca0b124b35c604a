"""Waiting for jobs that really run the tiny models."""

from collections.abc import Callable

from tests.support import queue as queue_support
from webui.eichi_utils.jobs.queue import JobQueue, QueueView

LONG = 200
"""Seconds that no tiny job needs, even where the first one imports torch on a busy machine."""


def wait_until(queue: JobQueue, is_so: Callable[[QueueView], object]) -> QueueView:
    return queue_support.wait_until(queue, is_so, LONG)
