"""Routes: pauses, which stop all grants of a company or an equipment with one call."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import text_of
from broker.errors import Unknown
from broker.namespace import EquipmentAddress
from broker.rights import Action, Pause, Span
from testbed_api.http import openapi_examples
from testbed_api.http.auth import Asking, Caller, asks
from testbed_api.http.dependencies import Given, Parts
from testbed_api.http.schemas import Form, Id

router = APIRouter(tags=["sharing"])

_EXAMPLE = {
    "company": "company",
    "equipment": None,
    "from": "2026-11-23T12:00:00.000000000Z",
}


class PauseForm(Form):
    """What stops: all grants to a company, or of an equipment; both is one at the other."""

    company: Annotated[Id | None, Field(description="any if left out")] = None
    equipment: Annotated[
        str | None, Field(max_length=81, description="organisation/equipment; any if left out")
    ] = None

    def pause(self, caller: Caller, now_ns: int) -> Pause:
        """As the policy has it; raises Unknown or Forbidden if it is not the caller's to stop."""
        if self.equipment is None:
            caller.must(Action.PAUSE, caller.organisation)
            return Pause(caller.organisation, self.company, None, Span(now_ns))
        address = EquipmentAddress.parse(self.equipment)
        caller.must(Action.PAUSE, address)
        return Pause(caller.organisation, self.company, address.equipment, Span(now_ns))


@router.post(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    status_code=201,
    summary="Pause all grants of a company, of an equipment, or all that you gave",
    responses=openapi_examples.answer(_EXAMPLE, status=201),
)
async def add_pause(form: PauseForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners, engineers and operators. Nobody reads under these grants until they are resumed;
    connections end at once. What is paused already stays so.
    """
    one = form.pause(caller, parts.clock.now_ns())
    if one.equipment is not None:
        await parts.registry.equipment(EquipmentAddress(one.owner, one.equipment))
    standing = {_about(each) for each in (await _standing(parts, caller))}
    async with parts.changes.of(await _concerned(parts, one)) as registry:
        if _about(one) not in standing:
            await registry.add_pause(one, by=caller.id)
    return _told(one)


@router.get(
    "/pauses",
    openapi_extra=asks(Action.WATCH),
    summary="What your organisation has paused",
    responses=openapi_examples.answer({"items": [_EXAMPLE]}),
)
async def pauses(parts: Given, caller: Asking) -> dict[str, Any]:
    """For its members."""
    caller.must(Action.WATCH, caller.organisation)
    return {"items": [_told(one) for one in await _standing(parts, caller)]}


@router.delete(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    summary="Resume what was paused in the same words",
    responses=openapi_examples.answer({"resumed": 1}),
)
async def end_pauses(
    asked: Annotated[PauseForm, Query()], parts: Given, caller: Asking
) -> dict[str, Any]:
    """For owners, engineers and operators. Grants that another pause stops stay stopped."""
    now_ns = parts.clock.now_ns()
    one = asked.pause(caller, now_ns)
    async with parts.changes.of(await _concerned(parts, one)) as registry:
        ended = await registry.end_pauses(one, by=caller.id, now_ns=now_ns)
    if not ended:
        raise Unknown("nothing is paused in these words", hint="GET /pauses shows what is")
    return {"resumed": ended}


async def _standing(parts: Parts, caller: Caller) -> list[Pause]:
    now_ns = parts.clock.now_ns()
    found = (await parts.registry.pauses(caller.organisation)).values()
    return [one for one in found if one.span.covers(now_ns)]


async def _concerned(parts: Parts, one: Pause) -> list[str]:
    """Everybody of a company with a grant that it stops."""
    companies = {each.company for each in await parts.registry.requests(owner=one.owner)}
    if one.company is not None:
        companies &= {one.company}
    return [
        person
        for company in sorted(companies)
        for person in await parts.changes.of_organisation(company)
    ]


def _about(one: Pause) -> tuple[str | None, str | None]:
    return one.company, one.equipment


def _told(one: Pause) -> dict[str, Any]:
    equipment = None if one.equipment is None else f"{one.owner}/{one.equipment}"
    return {"company": one.company, "equipment": equipment, "from": text_of(one.span.from_ns)}
