"""Routes: pauses, which stop all grants of a company or an equipment with one call."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from broker.namespace import EquipmentAddress
from broker.responses.grants import PauseResponse, PausesResponse, ResumedResponse
from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import PauseActionsDep
from testbed_api.http.schemas import Form, Id

router = APIRouter(tags=["sharing"])


class PauseForm(Form):
    """The grants to pause: those of a company, of an equipment, or of both together."""

    company: Annotated[Id | None, Field(description="any if left out")] = None
    equipment: Annotated[
        str | None, Field(max_length=81, description="organisation/equipment; any if left out")
    ] = None

    def address(self) -> EquipmentAddress | None:
        """The equipment that is named, None for all; raises Invalid."""
        return None if self.equipment is None else EquipmentAddress.parse(self.equipment)


@router.post(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    status_code=201,
    summary="Pause all grants of a company, of an equipment, or all that you gave",
    responses=openapi_examples.answer(PauseResponse, status=201),
)
async def add_pause(
    form: PauseForm, pauses: PauseActionsDep, context: ContextDep, caller: CallerDep
) -> PauseResponse:
    """Allowed to owners, engineers and operators. Nobody reads under these grants until they are
    resumed; connections end at once. What is paused already stays so.
    """
    pause = await pauses.pause(context, caller, form.company, form.address())
    return PauseResponse.from_pause(pause)


@router.get(
    "/pauses",
    openapi_extra=asks(Action.WATCH),
    summary="What your organisation has paused",
    responses=openapi_examples.answer(PausesResponse),
)
async def pauses(pauses: PauseActionsDep, caller: CallerDep) -> PausesResponse:
    """Allowed to its members."""
    caller.must(Action.WATCH, caller.organisation)
    standing = await pauses.standing(caller.organisation)
    return PausesResponse(items=list(map(PauseResponse.from_pause, standing)))


@router.delete(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    summary="Resume what was paused for the same company and equipment",
    responses=openapi_examples.answer(ResumedResponse),
)
async def end_pauses(
    query: Annotated[PauseForm, Query()],
    pauses: PauseActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> ResumedResponse:
    """Allowed to owners, engineers and operators. Grants that another pause stops stay stopped."""
    resumed = await pauses.resume(context, caller, query.company, query.address())
    return ResumedResponse(resumed=resumed)
