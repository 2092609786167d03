"""The list of work of a runner: fetched as soon as it changes, and kept for a start without API."""

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from pydantic import ValidationError

from broker.api_client import CredentialRefused
from broker.clock import Backoff, Clock
from broker.errors import Corrupt, Forbidden, Unavailable
from broker.process import files
from broker.responses.deployments import WorkResponse
from testbed_runner.api import RunnerApi
from testbed_runner.orders import RunnerOrder

FILE = "work.json"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
REFUSALS = 3
"""Refusals in a row after which the runner counts as locked out."""
REFUSED_PAUSE_S = 3.0

log = structlog.get_logger()

Receive = Callable[[Mapping[int, RunnerOrder]], None]


class WorkList:
    """Fetches the work of a runner, and hands each new list over."""

    def __init__(self, folder: Path, api: RunnerApi, clock: Clock) -> None:
        """folder: keeps the last list, which has no secrets."""
        self._file = folder / FILE
        self._api = api
        self._clock = clock
        self._is_away = False

    def stored(self) -> Mapping[int, RunnerOrder] | None:
        """The last list of a runner before this one; None if there is none that can be read."""
        try:
            return orders_of(WorkResponse.model_validate_json(self._file.read_bytes()))
        except (OSError, ValidationError, Corrupt):
            return None

    async def follow(self, receive: Receive) -> None:
        """Fetch the list whenever it changes, until cancelled.

        Raises Forbidden once the testbed has refused the runner several times in a row.
        """
        backoff = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        revision, refusals = None, 0
        while True:
            try:
                work = await self._api.work(revision)
                orders = orders_of(work)
            except Forbidden as exc:
                refusals += 1
                if refusals >= REFUSALS:
                    raise _locked_out(exc) from exc
                await self._clock.sleep(REFUSED_PAUSE_S)
            except (Unavailable, Corrupt) as exc:
                self._went_away(exc)
                await backoff.pause()
            else:
                refusals = 0
                backoff.reset()
                self._came_back()
                if work.revision != revision:
                    revision = work.revision
                    self._keep(work)
                    receive(orders)

    def _keep(self, work: WorkResponse) -> None:
        """Write the list down; without it, a start without API waits for the API."""
        try:
            files.replace(self._file, work.model_dump_json().encode())
        except OSError as exc:
            log.warning("list of work was not written", file=str(self._file), reason=exc.strerror)

    def _went_away(self, exc: Unavailable | Corrupt) -> None:
        if not self._is_away:
            log.warning("testbed gives no work", reason=str(exc))
        self._is_away = True

    def _came_back(self) -> None:
        if self._is_away:
            log.info("testbed gives work again")
        self._is_away = False


def orders_of(work: WorkResponse) -> dict[int, RunnerOrder]:
    """The orders of a list, by the number of the deployment; raises Corrupt."""
    return {item.id: RunnerOrder.from_item(item) for item in work.items}


def _locked_out(exc: Forbidden) -> Forbidden:
    """The error of a runner that the testbed does not accept."""
    if not isinstance(exc, CredentialRefused):
        return exc
    return CredentialRefused(
        "the testbed does not accept this runner any more: it was locked out, or its credential was"
        " replaced",
        hint="have a code made, `testbed runner code NAME`; then here: testbed runner run --code"
        " CODE",
    )
