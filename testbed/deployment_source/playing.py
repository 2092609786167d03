"""Plays the inputs of a deployment at wall time: each row once it is due, stamped with that."""

from collections.abc import Mapping

import structlog

from broker.clock import NS_PER_S, Clock, SteadyTime
from testbed.deployment_source import inputs
from testbed.deployment_source.inputs import PlayedInputs, StampedRow
from testbed_sdk.outputs import Output

LEAST_PAUSE_NS = NS_PER_S // 20
"""Rows that are closer to each other go in one batch."""
HELD_UP_NS = 5 * NS_PER_S
"""A source that is so late was held up: it does not catch up, but goes on from now."""
CAUSE = "source-held-up"
MOST_ROWS = 500
"""Rows in a batch."""

log = structlog.get_logger()


class Player:
    """Publishes rows of all inputs on one time axis.

    After a hold-up, such as a frozen process or a broker that was away for long, the machines go
    on where they stopped, and the time between lies in a stated gap.
    """

    def __init__(
        self, played: PlayedInputs, outputs: Mapping[str, Output], clock: Clock, *, speed: float
    ) -> None:
        """outputs: input -> its output.  speed: seconds of the source in a second."""
        self._played = played
        self._outputs = outputs
        self._clock = clock
        self._speed = speed
        self._waiting: dict[str, list[StampedRow]] = {name: [] for name in outputs}
        self._signals = {each.name: each.signals for each in played.inputs}
        self._newest_ns: dict[str, int] = {}

    async def play(self) -> int:
        """Publish every row once it is due; returns their number after the last one."""
        time = SteadyTime(self._clock)
        start_ns, count = time.now_ns(), 0
        for after_ns, name, row in self._played.rows():
            due_ns = start_ns + round(after_ns / self._speed)
            if due_ns > time.now_ns():
                await self._publish()
                pause_ns = max(due_ns - time.now_ns(), LEAST_PAUSE_NS)
                await self._clock.sleep(pause_ns / NS_PER_S)
            late_ns = time.now_ns() - due_ns
            if late_ns > HELD_UP_NS:
                start_ns += late_ns
                due_ns += late_ns
                await self._publish()
                await self._state_gaps(due_ns - 1)
            self._waiting[name].append((due_ns, row))
            count += 1
            if len(self._waiting[name]) >= MOST_ROWS:
                await self._publish()
        await self._publish()
        return count

    async def _publish(self) -> None:
        """Publish the rows that are due."""
        for name, rows in self._waiting.items():
            if rows:
                self._newest_ns[name] = rows[-1][0]
                for each in inputs.columns_of(self._signals[name], rows):
                    await self._outputs[name].publish(
                        each.time_ns, each.values, quality=each.quality
                    )
                rows.clear()
        await self._clock.sleep(0)

    async def _state_gaps(self, until_ns: int) -> None:
        """State the time since the newest sample of each input as a gap."""
        for name, newest_ns in self._newest_ns.items():
            if newest_ns < until_ns:
                await self._outputs[name].state_gap(newest_ns + 1, until_ns, CAUSE)
        log.warning("source was held up", inputs=sorted(self._newest_ns))
