"""A deployment as server-sent events: lines, changes of state, metrics, and its end.

Each event has an id that says how far its reader is, so that a reader that was cut off goes on
where it was: `LINE.EVENT`, the numbers of the last line and of the last change of state.
"""

import heapq
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from broker.clock import NS_PER_S, Clock
from broker.errors import Invalid
from broker.responses.base import ApiResponse
from testbed_api.actions.caller import Caller
from testbed_api.deployments.news import DeploymentNews
from testbed_api.deployments.status import DeploymentStatuses
from testbed_api.domain.deployments import Deployment, DeploymentEvent, PrintedLine
from testbed_api.http.deployment_answers import (
    deployment_answer,
    event_answer,
    line_answer,
    metrics_answer,
)
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK_EVERY_S = 0.5
"""Lines and metrics are looked for so often; changes of state wake their readers in this process
at once.
"""
BEAT_EVERY_S = 10.0
BEAT = b": beat\n\n"
LINES_AT_ONCE = 500
FAREWELL = b"event: ended\ndata: your right to follow this deployment has ended\n\n"
"""The last event of whoever may follow no more."""
_ID = re.compile(r"(\d{1,15})\.(\d{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FollowPosition:
    """How far a reader is.  line, event: numbers of the last that it has; event None for one that
    wants the newest change of state first.
    """

    line: int = 0
    event: int | None = None

    @classmethod
    def parse(cls, text: str) -> "FollowPosition":
        """Parse the id of an event; raises Invalid."""
        match = _ID.fullmatch(text)
        if match is None:
            raise Invalid(
                f"Last-Event-ID = {text[:40]!r} is the id of no event of a deployment",
                hint="send that of the last event that you have, or none",
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.line}.{self.event or 0}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentEventStream:
    """The events of one deployment, for one caller."""

    caller: Caller
    number: int
    registry: Registry
    statuses: DeploymentStatuses
    news: DeploymentNews
    quotas: Quotas
    clock: Clock

    async def events(self, position: FollowPosition) -> AsyncIterator[bytes]:
        """Yield events until the deployment has ended, and a comment every ten seconds.

        Raises TooMany first, if the caller's organisation has too many connections open.
        """
        organisation = self.caller.organisation
        await self.quotas.make_room(organisation, self._principals)
        with self.quotas.following(organisation):
            async with aclosing(cast("AsyncGenerator[bytes]", self._events(position))) as events:
                async for text in events:
                    yield text

    async def _principals(self) -> list[str]:
        now_ns = self.clock.now_ns()
        members = await self.registry.principals.in_organisation(self.caller.organisation, now_ns)
        return [each.id for each in members]

    async def _events(self, position: FollowPosition) -> AsyncIterator[bytes]:
        yield b": following\n\n"
        metrics_ns, beat_ns = -1, self.clock.monotonic_ns()
        while True:
            deployment = await self.registry.deployments.get(self.number)
            changes = await self._changes(deployment, position)
            lines = await self._lines(position)
            position, texts = _told(position, changes, lines)
            if deployment.metrics is not None and deployment.metrics.at_ns != metrics_ns:
                metrics_ns = deployment.metrics.at_ns
                texts.append(_event("metrics", metrics_answer(deployment.metrics), position))
            if texts:
                beat_ns = self.clock.monotonic_ns()
                yield b"".join(texts)
            if len(lines) == LINES_AT_ONCE:
                continue
            if deployment.is_over:
                (status,) = await self.statuses.of([deployment])
                yield _event("end", deployment_answer(status), position)
                return
            await self.news.wait(LOOK_EVERY_S)
            if self.clock.monotonic_ns() - beat_ns >= BEAT_EVERY_S * NS_PER_S:
                beat_ns = self.clock.monotonic_ns()
                yield BEAT

    async def _changes(
        self, deployment: Deployment, position: FollowPosition
    ) -> list[DeploymentEvent]:
        """The changes of state that the reader has not; the newest alone for a new reader."""
        changes = await self.registry.deployments.events(deployment.id)
        if position.event is None:
            return list(changes[-1:])
        return [each for each in changes if each.number > position.event]

    async def _lines(self, position: FollowPosition) -> list[PrintedLine]:
        logs = self.registry.deployment_logs
        return await logs.page(self.number, position.line, LINES_AT_ONCE)


def _told(
    position: FollowPosition, changes: list[DeploymentEvent], lines: list[PrintedLine]
) -> tuple[FollowPosition, list[bytes]]:
    """The events of lines and changes in the order of their time, and how far the reader is then.

    Lines that are kept no more are told by their count.
    """
    texts = []
    if lines and position.line and lines[0].number > position.line + 1:
        missed = lines[0].number - position.line - 1
        texts.append(b"event: missed\ndata: %d\n\n" % missed)
    either: Iterable[PrintedLine | DeploymentEvent] = heapq.merge(changes, lines, key=_time)
    for each in either:
        if isinstance(each, PrintedLine):
            position = replace(position, line=max(position.line, each.number))
            texts.append(_event("log", line_answer(each), position))
        else:
            position = replace(position, event=max(position.event or 0, each.number))
            texts.append(_event("state", event_answer(each), position))
    return position, texts


def _time(each: PrintedLine | DeploymentEvent) -> int:
    return each.at_ns


def _event(name: str, answer: ApiResponse, position: FollowPosition) -> bytes:
    """One server-sent event; JSON has no line break."""
    data = answer.model_dump_json(by_alias=True)
    return f"id: {position}\nevent: {name}\ndata: {data}\n\n".encode()
