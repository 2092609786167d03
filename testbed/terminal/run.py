"""How a command runs: signals, errors as sentences, exit codes, logs.

0 done · 1 the verdict is negative · 2 your input · 3 the testbed's or a service's fault · 130
interrupted.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, MutableMapping
from enum import IntEnum
from typing import Any, NoReturn, TextIO, TypeVar

import structlog

from broker.errors import BedError, Refused, first_of
from testbed.terminal.screen import Screen, plain

GARBAGE_EVERY = 50_000
"""Objects made and not freed before a search for cycles: a document read is hundreds, none a cycle,
and Python's own 700 lets half of the recorder's time go into searching."""

_AS_JSON = structlog.processors.JSONRenderer()

_T = TypeVar("_T")


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    NEGATIVE = 1
    INPUT = 2
    FAULT = 3
    INTERRUPTED = 130


def log_to_stderr(*, verbose: bool = True) -> None:
    """Events in colour on a terminal, as JSON elsewhere; data alone goes to stdout."""
    log_to(sys.stderr, verbose=verbose)
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it logs what it also raises


def log_to(file: TextIO, *, verbose: bool = True) -> None:
    """Log there; one event is one line, but for a traceback, and what it repeats is only text."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([_as_text, structlog.dev.ConsoleRenderer()] if file.isatty() else [_AS_JSON]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.WARNING
        ),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )


def _as_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Principals that are refused and topics nobody understands are words of strangers."""
    shown = {name: plain(one) if isinstance(one, str) else one for name, one in event.items()}
    if isinstance(traceback := event.get("exception"), str):
        # set in, so that no line of an error's message looks like an event
        shown["exception"] = plain(traceback, keep="\n").replace("\n", "\n  ")
    return shown


def run(main: Coroutine[Any, Any, _T], *, keeps_data: bool = False) -> _T:
    """Run a command to its end; an error ends the process with its sentence and its exit code.

    keeps_data: what it and its children write is nobody else's to read, whatever folder it is in.
    """
    gc.set_threshold(GARBAGE_EVERY)
    if keeps_data:
        os.umask(0o077)
    try:
        return asyncio.run(_until_terminated(main))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BedError as exc:
        fail(exc)
    except ExceptionGroup as group:
        known, bugs = group.split(BedError)
        if bugs is not None or known is None:
            raise
        fail(first_of(known))


async def _until_terminated(main: Coroutine[Any, Any, _T]) -> _T:
    """SIGTERM ends a command as orderly as Ctrl-C, and is no error."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    except asyncio.CancelledError:
        if terminated:
            sys.exit(Exit.DONE)
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def fail(error: BedError) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    console = Screen(stderr=True)
    console.print(f"error: {error.message}", style="red")
    if error.hint:
        console.print(f"hint: {error.hint}")
    sys.exit(Exit.INPUT if isinstance(error, Refused) else Exit.FAULT)
