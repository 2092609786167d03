"""Routes: how a gateway gets in with a one-time code, and is locked out again."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from broker.clock import text_of
from broker.process_identity import RunningProcess
from broker.responses.enrolment import (
    EnrolmentCodeResponse,
    FormerGatewayResponse,
    GatewayProcessesResponse,
    GatewayProcessResponse,
    GatewayResponse,
    GatewaysResponse,
    NewGatewayResponse,
)
from broker.rights import Action
from testbed_api.actions.enrolment import AdmittedGateway
from testbed_api.domain.enrolment import EnrolmentClaim
from testbed_api.domain.publishers import MachineAccess
from testbed_api.http import openapi_examples, request_context
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import EnrolmentActionsDep
from testbed_api.http.schemas import Form, OfEquipment

router = APIRouter(tags=["gateways"])

_GATEWAY = "/equipment/{organisation}/{equipment}/gateway"


class ClaimForm(Form):
    """A gateway's claim: the code, and a signature that only its key can make."""

    code: Annotated[str, Field(max_length=60, examples=["K7QX2-9MWRT-HCV4N-PD8YB"])]
    public_key: Annotated[str, Field(max_length=60, description="Ed25519, 32 bytes as base64")]
    signature: Annotated[
        str, Field(max_length=120, description="of the statement in broker/enrolment.py, base64")
    ]

    def claim(self) -> EnrolmentClaim:
        """The claim as the action takes it, not verified yet."""
        return EnrolmentClaim(code=self.code, public_key=self.public_key, signature=self.signature)


@router.post(
    _GATEWAY + "/codes",
    openapi_extra=asks(Action.SHARE),
    status_code=201,
    summary="Make a one-time code for the gateway of an equipment: it is shown this once",
    responses=openapi_examples.answer(EnrolmentCodeResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_code(
    address: OfEquipment, enrolments: EnrolmentActionsDep, context: ContextDep, caller: CallerDep
) -> EnrolmentCodeResponse:
    """Allowed to owners and engineers of its organisation. The code counts for an hour.

    It is for one gateway, and replaces a former unused one. The equipment may be unregistered.
    """
    code, issued = await enrolments.make_code(context, caller, address)
    expires_ns = issued.span.until_ns or issued.span.from_ns
    return EnrolmentCodeResponse(code=code, expires=text_of(expires_ns))


@router.post(
    "/enrolments",
    openapi_extra=asks(None),
    status_code=201,
    summary="Enrol a gateway: its credential is shown this once",
    responses=openapi_examples.answer(NewGatewayResponse, status=201)
    | openapi_examples.problems(409, 429),
)
async def enrol(
    form: ClaimForm, enrolments: EnrolmentActionsDep, request: Request
) -> NewGatewayResponse:
    """Needs a code instead of a credential. The new credential is for streams of that equipment.

    The same key may show the same code again within its hour, if the answer was lost: the
    credential is a new one then, and the former counts no more. Ten failures in a minute from one
    address are answered 429 for a while.
    """
    context = request_context.current(request.scope)
    enrolled = await enrolments.enrol(context, form.claim())
    return NewGatewayResponse(
        credential=enrolled.credential.text,
        principal=enrolled.credential.principal,
        equipment=str(enrolled.equipment),
        fingerprint=enrolled.fingerprint,
    )


@router.get(
    _GATEWAY,
    openapi_extra=asks(Action.WATCH),
    summary="The gateway of an equipment",
    responses=openapi_examples.answer(GatewaysResponse),
)
async def gateway(
    address: OfEquipment, enrolments: EnrolmentActionsDep, caller: CallerDep
) -> GatewaysResponse:
    """Allowed to the people of its organisation; empty without a gateway. The fingerprint is the
    one that `testbed gateway enrol` printed on the machine. `former` is the last one that was
    locked out, until it has a new one.
    """
    gateways = await enrolments.gateways(caller, address)
    former = await enrolments.former(caller, address)
    return GatewaysResponse(
        items=list(map(_gateway, gateways)), former=None if former is None else _former(former)
    )


@router.get(
    _GATEWAY + "/processes",
    openapi_extra=asks(Action.WATCH),
    summary="The running gateway of an equipment",
    responses=openapi_examples.answer(GatewayProcessesResponse),
)
async def gateway_processes(
    address: OfEquipment, enrolments: EnrolmentActionsDep, caller: CallerDep
) -> GatewayProcessesResponse:
    """Allowed to the people of its organisation, and to the machine that publishes it, which is
    told of its own processes. Empty without one, and with Mosquitto, which lists no connections.
    """
    processes = await enrolments.processes(caller, address)
    return GatewayProcessesResponse(items=[_process(*each) for each in processes])


@router.delete(
    _GATEWAY,
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Lock out the gateway of an equipment at once",
)
async def lock_out(
    address: OfEquipment, enrolments: EnrolmentActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to owners and engineers of its organisation. Its credential, its connection and
    unused codes end. What it has not sent stays on its disk.
    """
    await enrolments.lock_out(context, caller, address)
    return Response(status_code=204)


def _gateway(gateway: AdmittedGateway) -> GatewayResponse:
    principal, used = gateway.principal, gateway.enrolment
    return GatewayResponse(
        principal=principal.id,
        since=text_of(principal.span.from_ns),
        fingerprint=used.fingerprint if used else None,
        code_made_by=used.by if used else None,
    )


def _former(gateway: MachineAccess) -> FormerGatewayResponse:
    return FormerGatewayResponse(
        principal=gateway.machine.id,
        until=text_of(gateway.ended_ns or 0),
        ended_by=gateway.ended_by,
    )


def _process(principal: str, process: RunningProcess) -> GatewayProcessResponse:
    return GatewayProcessResponse(
        principal=principal,
        client_id=process.client_id,
        host=process.identity.host,
        address=process.address,
        since=text_of(process.since_ns),
    )
