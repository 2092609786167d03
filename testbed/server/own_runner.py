"""The runner that `testbed up` starts beside the server: a site for all who deploy here.

Without Docker its programs are plain processes.  Then it is started only where the server listens
on loopback: who deploys there sits at this machine.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from broker.clock import Backoff, Clock
from broker.process import parent_death, termination
from broker.server_addresses import ServerAddresses
from broker.settings import child_environment
from testbed.terminal.run import Exit
from testbed_api.data_folder import RUNNER
from testbed_api.service import RunningServer
from testbed_runner import enrolment, products
from testbed_runner.port import ProductName
from testbed_runner.settings import AUTO, EVERYBODY, RunnerSettings

STOP_S = 8.0
"""Its programs have three seconds to end, and then it ends."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
NICE = 5
"""Its start is not to slow the server's first answers down."""
LOG = "runner.log"
SETTINGS = "TESTBED_RUNNER_"
"""Begin of the names of a runner's settings."""

log = structlog.get_logger()


async def run(server: RunningServer, data: Path, addresses: ServerAddresses, clock: Clock) -> None:
    """Run the runner of a data folder as a child process until cancelled.

    Returns where none is to run: the server listens to other machines, or the site was locked out.
    """
    product = product_of(server)
    if server.enrol_site is None or product is None:
        reason = "the server listens to other machines, and there is no Docker here"
        log.info("no runner was started", reason=reason)
        return
    folder = data / RUNNER
    if not enrolment.is_enrolled(folder):
        credential = await server.enrol_site()
        if credential is None:
            log.info("no runner was started", reason="the site was locked out, or its name is used")
            return
        enrolment.store(folder, credential)
    enrolment.store_addresses(folder, addresses)
    backoff = Backoff(clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S, jitter=False)
    while True:
        code = await _run_once(folder, product)
        if code == Exit.INPUT:
            log.error("runner was refused", log=str(folder / LOG), hint="it is not started again")
            return
        log.error("runner process ended", exit_code=code, log=str(folder / LOG))
        await backoff.pause()


def product_of(server: RunningServer) -> str | None:
    """The product of the runner beside a server, None if none is started."""
    if products.has_docker(RunnerSettings().runner_docker):
        return AUTO if server.api.is_loopback else ProductName.DOCKER
    return ProductName.PROCESS if server.api.is_loopback else None


async def _run_once(folder: Path, product: str) -> int:
    """Run the child process to its end; its exit code."""
    with (folder / LOG).open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "testbed", "runner", "run", "--folder", str(folder)),
            *("--product", product, "--trust", EVERYBODY, "--end-programs"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(os.environ),
            start_new_session=True,
            preexec_fn=_prepare(os.getpid()),
        )
    try:
        return await process.wait()
    finally:
        await asyncio.shield(termination.terminate(process, STOP_S))


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the child: of our settings, a runner's alone."""
    own = {name: text for name, text in environment.items() if name.startswith(SETTINGS)}
    return child_environment(environment) | own


def _prepare(parent: int) -> Callable[[], None]:
    """Return a `preexec_fn`: the child ends with us, and lets us go first."""
    end_with_us = parent_death.end_with_parent(parent)

    def prepare() -> None:
        end_with_us()
        os.nice(NICE)

    return prepare
