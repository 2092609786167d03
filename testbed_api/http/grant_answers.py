"""Grants as the API answers them: each with a sentence, and whether it is paused now."""

from collections.abc import Sequence

from broker.clock import text_of
from broker.responses.grants import GrantResponse, GrantsResponse
from broker.rights import Pause
from testbed_api.actions.grants import GrantActions
from testbed_api.domain import grants as domain_grants
from testbed_api.domain.grants import GrantRequest


async def one_answer(grants: GrantActions, grant: GrantRequest) -> GrantResponse:
    """The answer about one grant."""
    (response,) = await answers(grants, [grant])
    return response


async def many_answers(grants: GrantActions, requests: Sequence[GrantRequest]) -> GrantsResponse:
    """The answer about the grants that an act changed."""
    return GrantsResponse(items=await answers(grants, requests))


async def answers(grants: GrantActions, requests: Sequence[GrantRequest]) -> list[GrantResponse]:
    """The answers about grants, each with whether it is paused now."""
    pauses, now_ns = await grants.paused(requests), grants.clock.now_ns()
    return [grant_response(each, now_ns, pauses.get(each.id)) for each in requests]


def grant_response(grant: GrantRequest, now_ns: int, pause: Pause | None = None) -> GrantResponse:
    """The answer about one grant, with a sentence that says what it means."""
    span = grant.wanted if grant.grant is None else grant.grant.span
    return GrantResponse(
        id=grant.id,
        company=grant.company,
        space=grant.entry.space,
        stream=str(grant.entry.address),
        purpose=grant.purpose,
        state=grant.state,
        from_=text_of(span.from_ns) if span.from_ns else None,
        until=None if span.until_ns is None else text_of(span.until_ns),
        asked_by=grant.asked_by,
        decided_by=grant.decided_by,
        reason=grant.reason,
        paused=pause is not None,
        paused_since=None if pause is None else text_of(pause.span.from_ns),
        sentence=domain_grants.sentence(grant, now_ns, pause=pause),
    )
