"""Route: how all streams are, on one page, for whoever has to act."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import NS_PER_S, text_of
from broker.messages import Freshness as State
from broker.messages import Health
from broker.namespace import StreamAddress
from broker.rights import Action, Entry
from testbed_api.actions.caller import Caller
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import BusDep, ClockDep, FreshnessDep, LedgerDep, RecorderDep
from testbed_api.http.schemas import Form
from testbed_api.recorder.ledger import Trouble

router = APIRouter(tags=["operations"])

_LONGEST_S = 31 * 86_400


class Lately(Form):
    """How far back."""

    within_s: Annotated[
        float, Field(gt=0, le=_LONGEST_S, description="seconds in which gaps and letters count")
    ] = 3_600.0


@router.get(
    "/status",
    openapi_extra=asks(Action.WATCH),
    summary="How the streams are",
    responses=openapi_examples.answer(openapi_examples.STATUS),
)
async def status(
    asked: Annotated[Lately, Query()],
    ledger: LedgerDep,
    bus: BusDep,
    freshness: FreshnessDep,
    clock: ClockDep,
    recorder: RecorderDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """Freshness, alarms, and what went missing lately, of your own streams and those you may read.

    Who operates the testbed sees it of all of them, and reads none.

    A stream is listed in each space where its publisher says how fresh it is, or where something
    went missing; `state` is null where nobody says it. `interrupted` is why nothing is recorded
    just now, null while all is.
    """
    since_ns = clock.now_ns() - round(asked.within_s * NS_PER_S)
    trouble = await ledger.trouble_since(since_ns)
    said = {
        (space, str(address)): told
        for address, spaces in freshness.everything()
        for space, told in spaces.items()
    }
    seen = [
        (space, stream)
        for space, stream in sorted({*said, *trouble})
        if _is_seen(caller, space, StreamAddress.parse(stream))
    ]
    return {
        "since": text_of(since_ns),
        "interrupted": recorder.interrupted() or None,
        "broker": bus.is_connected,
        "streams": [
            {"stream": stream, "space": space}
            | _freshness(said.get((space, stream)))
            | asdict(trouble.get((space, stream), Trouble()))
            for space, stream in seen
        ],
    }


def _is_seen(caller: Caller, space: str, address: StreamAddress) -> bool:
    if caller.may(Action.OPERATE) or caller.may_read(space, address):
        return True
    return caller.may(Action.WATCH, Entry(space, address))


def _freshness(told: tuple[State, Health] | None) -> dict[str, Any]:
    if told is None:
        return {"state": None, "last": None, "alarms": []}
    state, health = told
    last = None if health.last_ns is None else text_of(health.last_ns)
    return {"state": state, "last": last, "alarms": health.alarms}
