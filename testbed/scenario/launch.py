"""The beginning of `testbed run`: a server loads its modules while the scenario is read."""

from pathlib import Path
from typing import TYPE_CHECKING

from broker.clock import Clock
from testbed.processes import server
from testbed.terminal.run import Exit, log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.scenario.wanted import WantedRun


async def run(file: Path, wanted: "Callable[[], WantedRun]", clock: Clock) -> Exit:
    """Read a scenario, and run all of it.

    wanted: makes the options.  Raises Invalid for what the file or the options have wrong; nothing
    has run then, and nothing was written but the error, into the JUnit file that is wanted.
    """
    async with server.loading() as loading_server:
        from testbed.scenario import junit, loading, terminal  # noqa: PLC0415 - beside the server's

        log_to_stderr()
        chosen = wanted()
        with junit.errors_in(chosen.junit, file):
            loaded = loading.load(file, clock)
            chosen.check(loaded)
            await clock.sleep(0)  # an interrupt during the imports comes here, before any folder
            return await terminal.run(loaded, chosen, clock, loading_server)
