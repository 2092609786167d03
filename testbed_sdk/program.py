"""Runs a prototype as a program of its own, which ends in order and without a traceback."""

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar, cast

from broker.errors import BedError, Refused
from broker.process import tasks

WRONG_INPUT, FAULT, INTERRUPTED = 2, 3, 130
"""Exit codes, the same as those of the command `testbed`."""

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result] | Callable[[], _Result]) -> _Result:
    """Run a program to its end and return its result: a coroutine, as `asyncio.run` does, or a
    plain function, which uses `connect_sync`.

    Ctrl-C ends the program without a traceback, with exit code 130.  An error of the testbed ends
    it with its sentence on standard error: exit code 2 if something must change first (`Refused`),
    3 otherwise.
    """
    try:
        result = main() if callable(main) else main
        if inspect.iscoroutine(result):  # of `run(main())`, and of `run(main)` as well
            result = asyncio.run(result)
        return cast("_Result", result)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BedError as exc:
        _fail(exc)
    except ExceptionGroup as group:
        _fail(tasks.first_failure(group))


def _fail(error: BedError) -> NoReturn:
    """Print an error and its hint on standard error, and end the program."""
    hint = f"hint: {error.hint}\n" if error.hint else ""
    sys.stderr.write(f"error: {error.message}\n{hint}")
    sys.exit(WRONG_INPUT if isinstance(error, Refused) else FAULT)
