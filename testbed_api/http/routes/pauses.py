"""Routes: pauses, which stop all grants of a company or an equipment with one call."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import text_of
from broker.namespace import EquipmentAddress
from broker.rights import Action, Pause
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import PauseActionsDep
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

    def address(self) -> EquipmentAddress | None:
        """The equipment that is named, None for all; raises Invalid."""
        return None if self.equipment is None else EquipmentAddress.parse(self.equipment)


@router.post(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    status_code=201,
    summary="Pause all grants of a company, of an equipment, or all that you gave",
    responses=openapi_examples.answer(_EXAMPLE, status=201),
)
async def add_pause(
    form: PauseForm, pauses: PauseActionsDep, context: ContextDep, caller: CallerDep
) -> dict[str, Any]:
    """For owners, engineers and operators. Nobody reads under these grants until they are resumed;
    connections end at once. What is paused already stays so.
    """
    return _document(await pauses.pause(context, caller, form.company, form.address()))


@router.get(
    "/pauses",
    openapi_extra=asks(Action.WATCH),
    summary="What your organisation has paused",
    responses=openapi_examples.answer({"items": [_EXAMPLE]}),
)
async def pauses(pauses: PauseActionsDep, caller: CallerDep) -> dict[str, Any]:
    """For its members."""
    caller.must(Action.WATCH, caller.organisation)
    return {"items": [_document(each) for each in await pauses.standing(caller.organisation)]}


@router.delete(
    "/pauses",
    openapi_extra=asks(Action.PAUSE),
    summary="Resume what was paused in the same words",
    responses=openapi_examples.answer({"resumed": 1}),
)
async def end_pauses(
    asked: Annotated[PauseForm, Query()],
    pauses: PauseActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners, engineers and operators. Grants that another pause stops stay stopped."""
    resumed = await pauses.resume(context, caller, asked.company, asked.address())
    return {"resumed": resumed}


def _document(pause: Pause) -> dict[str, Any]:
    equipment = None if pause.equipment is None else f"{pause.owner}/{pause.equipment}"
    return {"company": pause.company, "equipment": equipment, "from": text_of(pause.span.from_ns)}
