"""Tasks that run beside a block of code, and what comes out of a group of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from broker import errors
from broker.errors import BedError


@asynccontextmanager
async def background(tasks: Mapping[str, Coroutine[Any, Any, object]]) -> AsyncIterator[None]:
    """Run coroutines beside the body as tasks, and cancel them when it is left.

    tasks: name of the task -> coroutine.  An error of the body is raised as it is, not in a group,
    unless a task failed too; a task that fails cancels the body, and its error comes in a group.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(work, name=name) for name, work in tasks.items()]
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised below as it is, not in a group
            failure = exc
        finally:
            for task in running:
                task.cancel()
    if failure is not None:
        raise failure


def first_failure(group: ExceptionGroup[Exception]) -> BedError:
    """Return the first BedError of a group; raises the group itself if it holds any other error."""
    expected, others = group.split(BedError)
    if others is not None or expected is None:
        raise group
    return errors.first_of(expected)
