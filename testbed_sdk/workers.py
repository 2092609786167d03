"""The tasks and threads of a program: whether they work, and where.

A run's time stands while the program works.  A task of the program has work from the moment at
which the SDK gave it something until it waits in the SDK again, or waits for other tasks of the
program; a thread until it waits in the SDK again, or ends.
"""

import asyncio
import asyncio.locks
import asyncio.queues
import asyncio.taskgroups
import sys
import threading
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

Worker = asyncio.Task[Any] | threading.Thread

CALLING_THREAD: ContextVar[threading.Thread | None] = ContextVar("calling_thread", default=None)
"""The thread that a coroutine on the loop of `LoopThread` is run for."""

_ASYNCIO = str(Path(asyncio.__file__).parent)
_OWN = (str(Path(__file__).parent), str(Path(__file__).parents[1] / "broker"))
_AMONG_TASKS = {asyncio.locks.__file__, asyncio.queues.__file__}
_WAITED_FOR = "_fut_waiter"
"""What a task waits for: without it, nobody could say whether that is another task."""


def current() -> Worker | None:
    """The task that runs now, or the thread that it runs for; None outside of both."""
    return CALLING_THREAD.get() or asyncio.current_task()


def is_runnable(task: asyncio.Task[Any]) -> bool:
    """Whether a task will go on in a turn of its loop: it waits for nothing that is open."""
    waited = getattr(task, _WAITED_FOR, None)
    return not task.done() and (waited is None or waited.done())


def runnable_beside() -> asyncio.Task[Any] | None:
    """Another task of the loop that will go on in a turn of it, None if all wait."""
    own = asyncio.current_task()
    return next(
        (task for task in asyncio.all_tasks() if task is not own and is_runnable(task)), None
    )


def has_work(worker: Worker, waiting: Iterable[Worker]) -> bool:
    """Whether a task or thread works, or waits for something outside of the program's tasks.

    waiting: those that wait in the SDK.
    """
    if worker in waiting:
        return False
    if isinstance(worker, threading.Thread):
        return worker.is_alive()
    if worker.done():
        return False
    waited = getattr(worker, _WAITED_FOR, None)
    if waited is None or waited.done():
        return True
    others = list(_tasks_in(waited))
    frames = list(_frames(worker))
    if not others and frames and frames[-1].f_code.co_filename.startswith(_ASYNCIO):
        if frames[-1].f_code.co_filename in _AMONG_TASKS:
            return False
        for value in frames[-1].f_locals.values():
            others += _tasks_in(value)
    return not others or any(has_work(other, waiting) for other in others if other is not worker)


def place_of(worker: Worker) -> str:
    """The name of a task or thread, and the line of the program at which it is."""
    kind = "thread" if isinstance(worker, threading.Thread) else "task"
    name = worker.name if isinstance(worker, threading.Thread) else worker.get_name()
    own = [frame for frame in _frames(worker) if not _is_of_library(frame)]
    where = ""
    if own:
        file = Path(own[-1].f_code.co_filename).name
        where = f", at {file}:{own[-1].f_lineno}, in {own[-1].f_code.co_name}"
    return f"its {kind} {name!r} is at work{where}"


def _tasks_in(value: object) -> Iterator[asyncio.Task[Any]]:
    """The tasks that a value is, or holds: a task, a gathering, a group, a collection."""
    if isinstance(value, asyncio.Task):
        yield value
    elif isinstance(value, asyncio.TaskGroup):
        yield from getattr(value, "_tasks", ())
    elif isinstance(value, asyncio.Future):
        yield from (each for each in getattr(value, "_children", ()) if _is_task(each))
    elif isinstance(value, set | frozenset | list | tuple):
        yield from (each for each in value if _is_task(each))


def _is_task(value: object) -> bool:
    return isinstance(value, asyncio.Task)


def _frames(worker: Worker) -> Iterator[FrameType]:
    """The frames of a task or thread, from the outermost to where it is."""
    if isinstance(worker, threading.Thread):
        frame = sys._current_frames().get(worker.ident or 0)  # noqa: SLF001 - documented
        stack: list[FrameType] = []
        while frame is not None:
            stack.append(frame)
            frame = frame.f_back
        yield from reversed(stack)
        return
    awaited: Any = worker.get_coro()
    while awaited is not None:
        for kind in ("cr", "ag"):
            own = getattr(awaited, f"{kind}_frame", None)
            if own is not None:
                yield own
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)


def _is_of_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    standard = (_ASYNCIO, threading.__file__, "<frozen")
    return file.startswith((*_OWN, *standard)) or "/concurrent/" in file or "contextlib" in file
