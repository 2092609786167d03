"""Quotas of organisations, so that none takes the testbed from the others.

Generous: what honest work asks stays far below.  Each process counts for itself.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import structlog

from broker.clock import NS_PER_S, Clock
from testbed_api.domain.errors import TooMany

BURST_S = 10
"""So many seconds' worth may come at once, after a time with less."""
QUIET_S = 10
"""A burst of refusals has ended when there was none for so long."""
AGAIN_S = 60
"""When to come again where waiting alone does not help: somebody must let go of something."""
MOST_ADDRESSES = 100_000
"""Addresses without a credential that are remembered; the longest silent is forgotten first."""

ConnectionCounts = Callable[[], Awaitable[Mapping[str, int]]]
"""How many connections each principal has to the broker."""

log = structlog.get_logger()


async def _no_connections() -> Mapping[str, int]:
    return {}


class QuotaKind(StrEnum):
    """The kinds of quotas."""

    REQUESTS = "requests"
    ANONYMOUS = "anonymous"
    STREAMS = "streams"
    POINTS = "points"
    CONNECTIONS = "connections"
    RUNS = "runs"
    RECORDINGS = "recordings"
    IMAGES = "images"
    SECRETS = "secrets"
    DEPLOYMENTS = "deployments"


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """The limits of one organisation; `anonymous_per_s` is the limit of one address."""

    requests_per_s: int = 1_000
    anonymous_per_s: int = 200
    streams: int = 20_000
    points_per_s: int = 20_000_000
    connections: int = 2_000
    run_bytes: int = 1024**3
    recording_bytes: int = 50 * 1024**3
    recordings_at_once: int = 20
    image_bytes: int = 20 * 1024**3
    secrets: int = 100
    deployments: int = 10
    deployment_bytes: int = 16 * 1024**3
    deployment_cores: float = 16.0


@dataclass(slots=True)
class Bucket:
    """A token bucket: fills with `rate_per_s` up to BURST_S seconds' worth; may go below 0."""

    rate_per_s: int
    clock: Clock
    level: float = 0.0
    filled_ns: int | None = None

    def wait_s(self) -> int:
        """Whole seconds until something may be taken, 0 if at once."""
        self._fill()
        return 0 if self.level >= 1 else math.ceil((1 - self.level) / self.rate_per_s)

    def take(self, amount: float) -> None:
        """Take an amount, even if the level falls below 0."""
        self._fill()
        self.level -= amount

    def _fill(self) -> None:
        most, monotonic_ns = float(self.rate_per_s * BURST_S), self.clock.monotonic_ns()
        if self.filled_ns is None:
            self.level = most
        else:
            passed_s = (monotonic_ns - self.filled_ns) / NS_PER_S
            self.level = min(self.level + passed_s * self.rate_per_s, most)
        self.filled_ns = monotonic_ns


class Quotas:
    """Counts the use of the testbed by each organisation, and by each anonymous address.

    Use beyond a quota raises TooMany.
    """

    def __init__(
        self,
        clock: Clock,
        most: QuotaSettings | None = None,
        connection_counts: ConnectionCounts = _no_connections,
    ) -> None:
        """most: None for the defaults.  connection_counts: of a broker that can be asked."""
        self.most = most or QuotaSettings()
        self.refused: Counter[tuple[str, QuotaKind]] = Counter()
        """How often each organisation was refused; addresses all under the empty name."""
        self._clock = clock
        self._connection_counts = connection_counts
        self._requests: dict[str, Bucket] = {}
        self._points: dict[str, Bucket] = {}
        self._addresses: dict[str, Bucket] = {}
        self._over_http: Counter[str] = Counter()
        self._on_bus: Counter[str] = Counter()
        self._counted_ns: int | None = None
        self._counting = asyncio.Lock()
        self._refused_ns: dict[tuple[str, QuotaKind], int] = {}

    def request(self, organisation: str) -> None:
        """Count one request of an organisation."""
        rate = self.most.requests_per_s
        bucket = self._requests.setdefault(organisation, Bucket(rate, self._clock))
        if wait_s := bucket.wait_s():
            self._refuse(organisation, QuotaKind.REQUESTS, f"{rate} requests/s", wait_s)
        bucket.take(1)

    def anonymous(self, address: str) -> None:
        """Count one request of an address without a credential, or with a wrong one."""
        rate = self.most.anonymous_per_s
        bucket = self._addresses[address] = self._addresses.pop(address, Bucket(rate, self._clock))
        if len(self._addresses) > MOST_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        if wait_s := bucket.wait_s():
            limit = f"{rate} requests/s of one address"
            self._refuse("", QuotaKind.ANONYMOUS, limit, wait_s)
        bucket.take(1)

    def reading(self, organisation: str) -> None:
        """Allow a read of history, unless the organisation has read more than its rate."""
        rate = self.most.points_per_s
        bucket = self._points.setdefault(organisation, Bucket(rate, self._clock))
        if wait_s := bucket.wait_s():
            self._refuse(organisation, QuotaKind.POINTS, f"{rate} samples/s read", wait_s)

    def read(self, organisation: str, points: int) -> None:
        """Count samples that were sent; never refuses, so that no answer is cut off."""
        rate = self.most.points_per_s
        bucket = self._points.setdefault(organisation, Bucket(rate, self._clock))
        bucket.take(points)

    def registering(self, organisation: str, streams: int) -> None:
        """Check the number of streams that an organisation is about to have."""
        if streams > self.most.streams:
            self._refuse(organisation, QuotaKind.STREAMS, f"{self.most.streams} streams")

    def handing_over(self, organisation: str, stored_bytes: int) -> None:
        """Check that the runs of an organisation take less than its share, before one is added."""
        if stored_bytes >= self.most.run_bytes:
            limit = f"{self.most.run_bytes} bytes of runs; delete some"
            self._refuse(organisation, QuotaKind.RUNS, limit)

    def recording(self, organisation: str, used_bytes: int) -> None:
        """Check that the recordings of an organisation leave it room for more of one."""
        if used_bytes >= self.most.recording_bytes:
            limit = f"{self.most.recording_bytes:,} bytes of recordings of {organisation}"
            hint = "delete one that is not needed: `testbed recording delete server:NUMBER`"
            self._refuse(organisation, QuotaKind.RECORDINGS, limit, hint=hint)

    def ordering(self, organisation: str, being_made: int) -> None:
        """Check the number of recordings of an organisation that are being made already."""
        if being_made >= self.most.recordings_at_once:
            limit = f"{self.most.recordings_at_once} recordings of {organisation} at once"
            self._refuse(organisation, QuotaKind.RECORDINGS, limit)

    def pushing(self, organisation: str, used_bytes: int) -> None:
        """Check that the images of an organisation leave it room for more of one."""
        if used_bytes >= self.most.image_bytes:
            limit = f"{self.most.image_bytes:,} bytes of images of {organisation}"
            hint = "delete one that is not needed: `testbed image list`"
            self._refuse(organisation, QuotaKind.IMAGES, limit, hint=hint)

    def keeping_secrets(self, organisation: str, others: int) -> None:
        """Check that an organisation may have one more secret than those that it has."""
        if others >= self.most.secrets:
            limit = f"{self.most.secrets} secrets of {organisation}; delete one"
            self._refuse(organisation, QuotaKind.SECRETS, limit)

    def deploying(
        self, organisation: str, *, deployments: int, memory_bytes: int, cores: float
    ) -> None:
        """Check what the deployments of an organisation will be promised, with the next one."""
        limit = self.deployment_limit(
            organisation, deployments=deployments, memory_bytes=memory_bytes, cores=cores
        )
        if limit:
            hint = "stop one that is not needed: `testbed deployments` lists them"
            self._refuse(organisation, QuotaKind.DEPLOYMENTS, limit, hint=hint)

    def deployment_limit(
        self, organisation: str, *, deployments: int, memory_bytes: int, cores: float
    ) -> str:
        """The limit that the deployments of an organisation would pass; empty for none."""
        most = self.most
        if deployments > most.deployments:
            return f"{most.deployments} deployments of {organisation} at once"
        if memory_bytes > most.deployment_bytes:
            return f"{most.deployment_bytes:,} bytes of memory for deployments of {organisation}"
        if cores > most.deployment_cores:
            return f"{most.deployment_cores:g} cores for deployments of {organisation}"
        return ""

    async def make_room(
        self, organisation: str, principals: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Check that an organisation may open one more live connection.

        At the limit its connections to the broker are counted anew first.

        principals: the organisation's.
        """
        if self._open(organisation) >= self.most.connections:
            async with self._counting:  # those who come meanwhile wait for what it finds
                if self._open(organisation) >= self.most.connections and self._may_count():
                    mine = await principals()
                    counts = await self._connection_counts()
                    self._on_bus[organisation] = sum(counts.get(each, 0) for each in mine)
        if self._open(organisation) >= self.most.connections:
            limit = f"{self.most.connections} live connections"
            self._refuse(organisation, QuotaKind.CONNECTIONS, limit)

    def entered(self, organisation: str) -> None:
        """Count a new connection to the broker; its end is found by the next count alone."""
        self._on_bus[organisation] += 1

    @contextmanager
    def following(self, organisation: str) -> Iterator[None]:
        """Count a live connection over HTTP until left."""
        self._over_http[organisation] += 1
        try:
            yield
        finally:
            self._over_http[organisation] -= 1

    def _open(self, organisation: str) -> int:
        return self._over_http[organisation] + self._on_bus[organisation]

    def _may_count(self) -> bool:
        """Whether broker and registry may be asked for a count: at most once a second."""
        monotonic_ns = self._clock.monotonic_ns()
        if self._counted_ns is not None and monotonic_ns - self._counted_ns < NS_PER_S:
            return False
        self._counted_ns = monotonic_ns
        return True

    def _refuse(
        self,
        organisation: str,
        what: QuotaKind,
        limit: str,
        wait_s: int = AGAIN_S,
        *,
        hint: str = "",
    ) -> None:
        key, monotonic_ns = (organisation, what), self._clock.monotonic_ns()
        before_ns = self._refused_ns.get(key)
        if before_ns is None or monotonic_ns - before_ns > QUIET_S * NS_PER_S:
            log.warning("limit was reached", organisation=organisation, what=what, limit=limit)
        self._refused_ns[key] = monotonic_ns
        self.refused[key] += 1
        raise TooMany(f"more than {limit}", wait_s=wait_s, hint=hint)
