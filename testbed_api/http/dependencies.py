"""What the API is made of: handed to its app, and by it to every route."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request

from broker.bus import client
from broker.clock import Clock
from broker.rights import Entry
from testbed_api.audit.journal import Anchoring, Journal
from testbed_api.audit.read_counter import ReadBook
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth.rights_changes import Changes
from testbed_api.domain.audit import Act
from testbed_api.http.middleware import audit
from testbed_api.limits.quotas import Limits
from testbed_api.limits.sign_in_attempts import Failures
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry.access_log import Counted
from testbed_api.registry.registry import Registry
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.stores.port import SeriesStore


def _not_interrupted() -> str:
    return ""


async def _known_at_once(_principal: str) -> None:
    """Where the broker asks at each connection, nobody need be announced."""


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a route may need.

    disconnect: ends a principal's connections to the broker.  announce: lets a principal in
    with a token that is new.
    recorded: the recorder's counts, empty where it is not in this process.  interrupted: why it
    does not record just now, empty while it does.  live_batches: that wait for a slow reader of
    live events; beyond them the oldest are dropped, and it is told.  failures: of signing in,
    lately.  limits: what each organisation may ask for.  act: what the request does that these are
    handed to: `registry` tells of it with what it changes.
    """

    registry: Registry
    ledger: Ledger
    store: SeriesStore
    keeper: RetentionEnforcer
    dumper: Dumper
    bus: client.Bus
    freshness: FreshnessTracker
    clock: Clock
    disconnect: Callable[[str], Awaitable[None]]
    recorded: Callable[[], Mapping[str, int]]
    interrupted: Callable[[], str] = _not_interrupted
    live_batches: int = 200
    failures: Failures = field(default_factory=Failures)
    announce: Callable[[str], Awaitable[None]] = _known_at_once
    limits: Limits = field(default_factory=Limits)
    reads: ReadBook = field(default_factory=ReadBook)
    journal: Journal = field(kw_only=True)
    anchoring: Anchoring = field(kw_only=True)
    act: Act = field(default_factory=Act)

    @property
    def changes(self) -> Changes:
        """How rights are changed, with what follows on the bus."""
        return Changes(self.registry, self.clock, self.disconnect)

    async def note_read(self, principal: str, entry: Entry, way: str) -> None:
        """Count a read before it is answered; raises Unavailable: what cannot be counted is not
        read.
        """
        now_ns = self.clock.now_ns()
        await self.reads.note(self.registry, Counted.at(principal, entry, way, now_ns), now_ns)

    def doing(self, act: Act) -> "Parts":
        """The same for one act."""
        return replace(self, registry=self.registry.doing(act, self.clock), act=act)


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts.doing(audit.act_of(request.scope))


Given = Annotated[Parts, Depends(_parts)]
"""The parts, in a route's signature."""
