"""Route: the state of all streams on one page."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import DAY_NS, DAY_S, NS_PER_S, text_of
from broker.messages import Freshness, Health
from broker.namespace import StreamAddress
from broker.responses.operations import (
    BusRefusalResponse,
    NoticeChannelResponse,
    SilentGatewayResponse,
    StatusResponse,
    StreamStatusResponse,
)
from broker.rights import Action, Entry, PrincipalKind
from testbed_api.actions.caller import Caller
from testbed_api.domain import bus_refusals, publishers
from testbed_api.domain.audit import Event
from testbed_api.domain.bus_refusals import BusAct, RefusalSummary
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import (
    BusDep,
    CertificatesDep,
    ClockDep,
    ClockWatchDep,
    FreshnessDep,
    LedgerDep,
    RecorderDep,
    RegistryDep,
)
from testbed_api.http.schemas import Form, Space
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Trouble
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["operations"])

StreamKey = tuple[str, str]
"""(space, address of the stream)"""
StatedHealth = tuple[Freshness, Health]

_LONGEST_S = 31 * DAY_S
_MOST_REFUSALS = 2_000
"""Events of refusals that are summed up; in a flood from everywhere the earlier are left out."""
_MOST_KINDS = 50


class Lately(Form):
    """Query of the status: the span over which gaps and dead letters count, and the space."""

    within_s: Annotated[
        float, Field(gt=0, le=_LONGEST_S, description="seconds in which gaps and letters count")
    ] = 3_600.0
    space: Annotated[
        Space | None, Field(description="only streams of this space; every space if left out")
    ] = None

    def has(self, space: str) -> bool:
        """Whether streams of a space are asked for."""
        return self.space in {None, space}


@router.get(
    "/status",
    openapi_extra=asks(Action.WATCH),
    summary="How the streams are",
    responses=openapi_examples.answer(StatusResponse),
)
async def status(
    query: Annotated[Lately, Query()],
    ledger: LedgerDep,
    bus: BusDep,
    freshness: FreshnessDep,
    clock: ClockDep,
    clock_watch: ClockWatchDep,
    recorder: RecorderDep,
    registry: RegistryDep,
    certificates: CertificatesDep,
    caller: CallerDep,
) -> StatusResponse:
    """Freshness, alarms and recent losses of your own streams and those that you may read; for
    who operates the testbed of all of them.

    A stream is listed in each space where its publisher says how fresh it is, or where samples were
    stored or something went missing in that time; `state` is null where nobody says it. `last` is
    the newest sample that the publisher states, else the newest of those that were stored in that
    time. `interrupted` is why nothing is recorded just now, null while all is. `alarms` are of the
    server itself, for who operates it. `refused` is what programs tried in vain. `silent` lists
    gateways that state no health any more: they have ended, or are cut off from the broker.
    """
    within_ns = round(query.within_s * NS_PER_S)
    since_ns = clock.machine.now_ns() - within_ns
    trouble = await ledger.trouble_since(since_ns)
    stored = await ledger.newest_since(since_ns)
    health = _healths(freshness)
    keys = sorted(key for key in {*health, *trouble, *stored} if query.has(key[0]))
    visible = [key for key in keys if _is_seen(caller, *key)]
    operates = caller.may(Action.OPERATE)
    return StatusResponse(
        since=text_of(since_ns),
        interrupted=recorder.interrupted() or None,
        broker=bus.is_connected,
        alarms=[*clock_watch.alarms(), *certificates.alarms(clock.now_ns())] if operates else [],
        notices=await _channels(registry) if operates else [],
        refused=await _refused(registry, caller, clock.now_ns() - min(within_ns, DAY_NS)),
        silent=_silent(freshness, visible),
        streams=await _streams(registry, caller, clock.now_ns(), visible, health, stored, trouble),
    )


async def _streams(
    registry: Registry,
    caller: Caller,
    now_ns: int,
    visible: Sequence[StreamKey],
    health: Mapping[StreamKey, StatedHealth],
    stored: Mapping[StreamKey, int | None],
    trouble: Mapping[StreamKey, Trouble],
) -> list[StreamStatusResponse]:
    """The status of the streams that the caller sees, in their order."""
    unpublished = await _unpublished(registry, caller, health, now_ns)
    return [
        _stream(key, health.get(key), stored.get(key), trouble.get(key), unpublished.get(key))
        for key in visible
    ]


def _healths(freshness: FreshnessTracker) -> dict[StreamKey, StatedHealth]:
    """The state and health of each stream that has one, by space and address."""
    return {
        (space, str(address)): fresh
        for address, spaces in freshness.everything()
        for space, fresh in spaces.items()
    }


def _silent(
    freshness: FreshnessTracker, visible: Sequence[tuple[str, str]]
) -> list[SilentGatewayResponse]:
    """The gateways without a valid health, of the streams that the caller sees."""
    gateways = {(space, StreamAddress.parse(stream).owner) for space, stream in visible}
    return [
        SilentGatewayResponse(equipment=str(equipment), space=space, since=text_of(until_ns))
        for (space, equipment), until_ns in sorted(freshness.silent_gateways().items())
        if (space, equipment) in gateways
    ]


async def _channels(registry: Registry) -> list[NoticeChannelResponse]:
    """The channels on which notices wait."""
    return [
        NoticeChannelResponse(
            channel=each.channel,
            waiting=each.waiting,
            failed=each.failed,
            since=text_of(each.oldest_ns),
            reason=each.reason,
        )
        for each in await registry.notices.backlog()
    ]


async def _refused(registry: Registry, caller: Caller, from_ns: int) -> list[BusRefusalResponse]:
    """The refusals on the bus that the caller may know of, the latest kind first."""
    concerning = None if caller.may(Action.OPERATE) else caller.organisation
    events = await registry.audit.bus_refusals(from_ns, concerning, _MOST_REFUSALS)
    summaries = bus_refusals.summarised(_concerning(caller, events))
    return [
        BusRefusalResponse(
            act=each.act,
            principal=each.principal,
            organisation=each.organisation,
            target=each.target,
            reason=each.reason,
            source=each.source,
            count=each.count,
            first=text_of(each.first_ns),
            last=text_of(each.last_ns),
            advice=each.advice,
            own=_is_own(caller, each),
        )
        for each in summaries[:_MOST_KINDS]
    ]


def _concerning(caller: Caller, events: Sequence[Event]) -> Sequence[Event]:
    """Those that concern the caller itself.

    A machine knows of its own, a person of its organisation's people and machines; of others, who
    tried to reach what is its, only those know who may read its audit.
    """
    if caller.principal.kind is PrincipalKind.MACHINE:
        return [event for event in events if event.principal == caller.id]
    if caller.may(Action.OPERATE) or caller.may(Action.AUDIT, caller.organisation):
        return events
    return [
        event
        for event in events
        if event.organisation == caller.organisation or event.action == BusAct.CONNECT
    ]


def _is_own(caller: Caller, summary: RefusalSummary) -> bool:
    """Whether the caller's organisation can mend what was refused; a connect's has no party yet."""
    party = summary.owner if summary.act is BusAct.CONNECT else summary.organisation
    return party == caller.organisation or (party is None and caller.may(Action.OPERATE))


def _is_seen(caller: Caller, space: str, stream: str) -> bool:
    address = StreamAddress.parse(stream)
    if caller.may(Action.OPERATE) or caller.may_read(space, address):
        return True
    return caller.may(Action.WATCH, Entry(space, address))


async def _unpublished(
    registry: Registry, caller: Caller, health: Mapping[StreamKey, StatedHealth], now_ns: int
) -> dict[StreamKey, str]:
    """The alarm of each stale stream of the caller's organisation that nobody may publish.

    For its people: a publisher that was revoked can say nothing itself.  The end of a deployment is
    no alarm.
    """
    if caller.principal.kind is not PrincipalKind.PERSON:
        return {}
    stale = {
        key: Entry(key[0], address)
        for key, (state, _) in health.items()
        if state is Freshness.STALE
        and (address := StreamAddress.parse(key[1])).organisation == caller.organisation
    }
    if not stale:
        return {}
    machines = await registry.principals.machine_access(caller.organisation, now_ns)
    prototypes = await registry.deployments.prototypes(caller.organisation)
    alarms = {
        key: publishers.alarm(entry, machines, now_ns)
        for key, entry in stale.items()
        if entry.address.equipment not in prototypes
    }
    return {key: alarm for key, alarm in alarms.items() if alarm is not None}


def _stream(
    key: StreamKey,
    fresh: StatedHealth | None,
    stored_ns: int | None,
    trouble: Trouble | None,
    unpublished: str | None,
) -> StreamStatusResponse:
    """The status of one stream.

    fresh: None where no publisher states its health.  stored_ns: the newest sample stored, where
    that is known.  unpublished: the alarm that none may.
    """
    space, stream = key
    state, health = fresh or (None, None)
    last_ns = stored_ns if health is None or health.last_ns is None else health.last_ns
    counts = trouble or Trouble()
    return StreamStatusResponse(
        stream=stream,
        space=space,
        state=state,
        last=None if last_ns is None else text_of(last_ns),
        alarms=[*filter(None, [unpublished]), *(health.alarms if health else ())],
        gaps=counts.gaps,
        dead_letters=counts.dead_letters,
    )
