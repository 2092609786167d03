"""Runs a function as a prototype's program: `python -m …function_program MODULE:NAME`.

The function takes the connection, or nothing. A coroutine function gets a `Testbed`, any other a
`SyncTestbed`; one without a parameter connects by itself.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from broker.errors import BedError, Invalid
from testbed_sdk import connect, connect_sync, run


def function_of(name: str) -> Callable[..., Any]:
    """The function of `package.module:function`; raises Invalid."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # the module is there, and misses another
        raise Invalid(
            f"there is no module {exc.name!r}",
            hint="a module is looked for beside the scenario file, and among what is installed",
        ) from exc
    function = getattr(module, attribute, None)
    if not callable(function):
        raise Invalid(f"the module {module_name} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]  # whatever the module has under the name


async def _with_connection(function: Callable[..., Any]) -> None:
    async with connect() as testbed:
        await function(testbed)


def _with_sync_connection(function: Callable[..., Any]) -> None:
    with connect_sync() as testbed:
        function(testbed)


def main(name: str) -> None:
    """Run the function to its end, as a program does."""
    function = function_of(name)
    takes_connection = bool(inspect.signature(function).parameters)
    if not takes_connection:
        run(function)
    elif inspect.iscoroutinefunction(function):
        run(_with_connection(function))
    else:
        run(partial(_with_sync_connection, function))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BedError as error:
        sys.exit(f"error: {error}")
