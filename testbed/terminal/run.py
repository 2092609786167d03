"""Run a command: signals, errors printed as sentences, exit codes, logs.

The event loop and the logger are imported once a command runs: its help needs neither.

Exit codes: 0 done, 1 negative verdict, 2 wrong input, 3 fault of the testbed or of a service,
130 interrupted.
"""

import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from enum import IntEnum
from typing import Any, NoReturn, TextIO, TypeVar

from broker.errors import BedError, Refused
from testbed.terminal.interruption import Interruption
from testbed.terminal.screen import Screen, plain

_T = TypeVar("_T")


class Exit(IntEnum):
    """Exit codes of a command."""

    DONE = 0
    NEGATIVE = 1
    INPUT = 2
    FAULT = 3
    INTERRUPTED = 130


def log_to_stderr(*, verbose: bool = True) -> None:
    """Log to standard error: in colour on a terminal, as JSON elsewhere; stdout is for data."""
    log_to(sys.stderr, verbose=verbose)


def log_to(file: TextIO, *, verbose: bool = True) -> None:
    """Log to a file, one line an event but for tracebacks; control characters are escaped."""
    import logging

    import structlog

    as_json = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([_as_text, structlog.dev.ConsoleRenderer()] if file.isatty() else [as_json]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.WARNING
        ),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )


def _as_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape control characters in an event: topics and principals come from other parties."""
    escaped = {
        name: plain(value) if isinstance(value, str) else value for name, value in event.items()
    }
    if isinstance(traceback := event.get("exception"), str):
        # indented, so that no line of an error's message looks like an event
        escaped["exception"] = plain(traceback, keep="\n").replace("\n", "\n  ")
    return escaped


def run(main: Coroutine[Any, Any, _T], *, keeps_data: bool = False, serves: bool = False) -> _T:
    """Run a command to its end; a BedError ends the process with its sentence and exit code.

    keeps_data: files that the command and its child processes write are readable by their owner
    alone (umask 077).  serves: the command runs until it is stopped, so SIGTERM is its right end,
    exit code 0; of any other it is an interruption, as what it was to do is not done.
    """
    import asyncio
    import logging

    from broker.process import tasks

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it also raises what it logs
    if "structlog" in sys.modules:  # what a command runs is loaded by now: else nothing logs
        log_to_stderr()
    if keeps_data:
        os.umask(0o077)
    interruption = Interruption()
    try:
        with interruption.handled():
            return asyncio.run(_until_terminated(main, interruption, serves=serves))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except (asyncio.CancelledError, BedError, ExceptionGroup) as exc:
        if interruption.has_come:  # what fails then, fails as it ends
            sys.exit(Exit.INTERRUPTED)
        if isinstance(exc, asyncio.CancelledError):
            raise
        fail(exc if isinstance(exc, BedError) else tasks.first_failure(exc))


def call(function: Callable[[], _T]) -> _T:
    """Call a function that needs no event loop; a BedError ends the process as in `run`."""
    try:
        return function()
    except BedError as exc:
        fail(exc)


async def _until_terminated(
    main: Coroutine[Any, Any, _T], interruption: Interruption, *, serves: bool
) -> _T:
    """Await `main`; Ctrl-C and SIGTERM cancel it."""
    import asyncio

    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    terminated = False
    if task is not None:
        interruption.cancels(task)

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    with suppress(NotImplementedError):  # Windows has no SIGTERM that a loop could handle
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    except asyncio.CancelledError:
        if terminated:
            sys.exit(Exit.DONE if serves else Exit.INTERRUPTED)
        raise
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)


def fail(error: BedError) -> NoReturn:
    """Print an error and its hint on standard error, and exit with its code."""
    console = Screen(stderr=True)
    console.print(f"error: {error.message}", style="red")
    if error.hint:
        console.print(f"hint: {error.hint}")
    sys.exit(Exit.INPUT if isinstance(error, Refused) else Exit.FAULT)
