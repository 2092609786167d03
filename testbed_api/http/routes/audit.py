"""Routes: what was done, by whom and how it ended, and what proves that nothing of it changed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import AnchoringDep, RegistryDep
from testbed_api.http.schemas import EventsWanted, Heads
from testbed_api.registry.audit import EventFilter

router = APIRouter(tags=["audit"], prefix="/audit")

_EVENT = {
    "number": 17,
    "time": "2026-11-23T12:00:00.000000000Z",
    "action": "share",
    "target": "POST /grants",
    "outcome": "allowed",
    "principal": "fay",
    "organisation": "factory",
    "owner": "factory",
    "reason": "",
    "request": "5c1f0a7be2d94c36",
    "source": "10.0.0.7",
    "details": '{"company":"company","state":"granted"}',
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
_HEAD = {
    "v": 1,
    "count": 17,
    "hash": _EVENT["hash"],
    "time": _EVENT["time"],
    "key": _KEY,
    "signature": "e5564300…",
}


@router.get(
    "",
    openapi_extra=asks(Action.AUDIT),
    summary="What was done",
    responses=openapi_examples.answer(openapi_examples.page(_EVENT, 17) | {"all": False}),
)
async def events(
    asked: Annotated[EventsWanted, Query()], registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """In the order of the chain; for owners and auditors of an organisation what its members and
    machines did, and what was done to what is its.

    For auditors of an intermediary or agency, and owners of an intermediary, everything: `all` is
    true then. `details` is JSON, as it was hashed.
    """
    everything = caller.may(Action.AUDIT)
    if not everything:
        caller.must(Action.AUDIT, caller.organisation)
    from_ns, until_ns = asked.between()
    looked = EventFilter(
        None if everything else caller.organisation,
        asked.principal,
        asked.organisation,
        asked.action,
        from_ns,
        until_ns,
    )
    found = await registry.audit.events(looked, asked.cursor, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    following = page[-1].number if more else None
    return {"items": [one.plain for one in page], "next": following, "all": everything}


@router.get(
    "/heads",
    openapi_extra=asks(Action.AUDIT),
    summary="The signed heads of the chain",
    responses=openapi_examples.answer(openapi_examples.page(_HEAD, 5)),
)
async def heads(
    asked: Annotated[Heads, Query()], registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """So many events, the last with this hash: signed every minute, and handed to every gateway."""
    caller.must(Action.AUDIT, caller.organisation)
    if asked.newest:
        newest = await registry.audit.newest_head()
        return {"items": [] if newest is None else [newest.as_json], "next": None}
    found = await registry.audit.heads(asked.cursor, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    return {"items": [one.as_json for _, one in page], "next": page[-1][0] if more else None}


@router.get(
    "/key",
    openapi_extra=asks(Action.AUDIT),
    summary="Whose signature the heads have",
    responses=openapi_examples.answer({"key": _KEY}),
)
async def key(anchoring: AnchoringDep, caller: CallerDep) -> dict[str, str]:
    """The public key, Ed25519, in hex. Write it down where nobody who runs the testbed writes."""
    caller.must(Action.AUDIT, caller.organisation)
    return {"key": anchoring.key}
