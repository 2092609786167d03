"""Routes: what was done, by whom and how it ended, and what proves that nothing of it changed."""

from typing import Annotated

from fastapi import APIRouter, Query

from broker.responses.audit import (
    AuditEventPage,
    AuditEventResponse,
    AuditHeadPage,
    AuditHeadResponse,
    AuditKeyResponse,
)
from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import AnchoringDep, RegistryDep
from testbed_api.http.schemas import EventsWanted, Heads, split_page
from testbed_api.registry.audit import EventFilter

router = APIRouter(tags=["audit"], prefix="/audit")


@router.get(
    "",
    openapi_extra=asks(Action.AUDIT),
    summary="What was done",
    responses=openapi_examples.answer(AuditEventPage),
)
async def events(
    query: Annotated[EventsWanted, Query()], registry: RegistryDep, caller: CallerDep
) -> AuditEventPage:
    """Audit events in the order of the chain; owners and auditors see what their members and
    machines did, and what was done to what is its.

    For auditors of an intermediary or agency, and owners of an intermediary, everything: `all` is
    true then. `details` is JSON, as it was hashed.
    """
    everything = caller.may(Action.AUDIT)
    if not everything:
        caller.must(Action.AUDIT, caller.organisation)
    from_ns, until_ns = query.between(caller.at_ns)
    looked = EventFilter(
        None if everything else caller.organisation,
        query.principal,
        query.organisation,
        query.action,
        from_ns,
        until_ns,
    )
    rows = await registry.audit.events(looked, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    following = page[-1].number if more else None
    items = [AuditEventResponse.model_validate(link.plain) for link in page]
    return AuditEventPage(items=items, next=following, all=everything)


@router.get(
    "/heads",
    openapi_extra=asks(Action.AUDIT),
    summary="The signed heads of the chain",
    responses=openapi_examples.answer(AuditHeadPage),
)
async def heads(
    query: Annotated[Heads, Query()], registry: RegistryDep, caller: CallerDep
) -> AuditHeadPage:
    """Signed heads, made every minute: the number of events, and the hash of the last one."""
    caller.must(Action.AUDIT, caller.organisation)
    if query.newest:
        newest = await registry.audit.newest_head()
        items = [] if newest is None else [AuditHeadResponse.from_head(newest)]
        return AuditHeadPage(items=items, next=None)
    rows = await registry.audit.heads(query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    items = [AuditHeadResponse.from_head(head) for _, head in page]
    return AuditHeadPage(items=items, next=page[-1][0] if more else None)


@router.get(
    "/key",
    openapi_extra=asks(Action.AUDIT),
    summary="Whose signature the heads have",
    responses=openapi_examples.answer(AuditKeyResponse),
)
async def key(anchoring: AnchoringDep, caller: CallerDep) -> AuditKeyResponse:
    """The public key, Ed25519, in hex. Store it where operators of the testbed cannot write."""
    caller.must(Action.AUDIT, caller.organisation)
    return AuditKeyResponse(key=anchoring.key)
