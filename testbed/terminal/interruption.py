"""Ctrl-C while a command runs: the first ends it in order, and further ones do not disturb that.

asyncio alone takes a third one as an error of its own end, prints tracebacks, and leaves tasks that
were about to remove files.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

INTERRUPTED = 130
AT_ONCE_AFTER_S = 15.0
"""Time since the first Ctrl-C from which on another one ends the process at once: something hangs.

Child processes and temporary folders go then as after a kill."""


class Interruption:
    """The interrupts of one command, from the terminal or as SIGINT."""

    def __init__(self) -> None:
        """See `handled`."""
        self._first_s: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_ending = False

    @property
    def has_come(self) -> bool:
        """Whether there was one."""
        return self._first_s is not None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take interrupts until left, unless they are ignored, as in the background of a shell.

        Once there was one, the process is to end, and ignores any other.
        """
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._take)
        try:
            yield
        finally:
            # Python's own end takes a moment, in which another one would kill us with no exit code
            signal.signal(signal.SIGINT, signal.SIG_IGN if self.has_come else before)

    def cancels(self, task: "asyncio.Task[Any]") -> None:
        """Set the task that the first interrupt cancels; before, one raises KeyboardInterrupt."""
        self._task = task

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            if self._task is None or self._task.done():
                self._is_ending = True
                raise KeyboardInterrupt
            self._task.cancel()
            self._task.get_loop().call_soon_threadsafe(self._end)  # which also wakes the loop
        elif not self._is_ending:  # the loop is in a call that blocks, and knows of nothing
            self._is_ending = True
            raise KeyboardInterrupt
        elif now_s - self._first_s > AT_ONCE_AFTER_S:
            os._exit(INTERRUPTED)

    def _end(self) -> None:
        self._is_ending = True
