"""Routes: how a gateway gets in with a one-time code, and is locked out again."""

import asyncio
import base64
import binascii
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import APIRouter, Request, Response
from pydantic import Field

from broker import enrolment
from broker.clock import text_of
from broker.errors import Invalid, Refused, Taken, Unknown
from broker.namespace import EquipmentAddress
from broker.responses.enrolment import (
    EnrolmentCodeResponse,
    GatewayResponse,
    GatewaysResponse,
    NewGatewayResponse,
)
from broker.rights import Action, Scope, Span
from testbed_api.domain import enrolment as enrolling
from testbed_api.domain import organisations, tokens
from testbed_api.domain.enrolment import Enrolment
from testbed_api.domain.errors import Unauthenticated
from testbed_api.domain.tokens import Token
from testbed_api.http import openapi_examples, request_context
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, ConnectionsDep, RegistryDep, SignInAttemptsDep
from testbed_api.http.middleware import rate_limit
from testbed_api.http.schemas import Form, OfEquipment
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["gateways"])

_GATEWAY = "/equipment/{organisation}/{equipment}/gateway"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


class ClaimForm(Form):
    """A gateway's claim: the code, and a signature that only its key can make."""

    code: Annotated[str, Field(max_length=60, examples=["K7QX2-9MWRT-HCV4N-PD8YB"])]
    public_key: Annotated[str, Field(max_length=60, description="Ed25519, 32 bytes as base64")]
    signature: Annotated[
        str, Field(max_length=120, description="of the statement in broker/enrolment.py, base64")
    ]

    def checked_key(self) -> bytes:
        """The public key, once the signature is right; raises Invalid."""
        key = _bytes(self.public_key, _KEY_BYTES, "public_key")
        signature = _bytes(self.signature, _SIGNATURE_BYTES, "signature")
        try:
            signed = enrolment.statement(self.code, key)
            Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        except (InvalidSignature, ValueError) as exc:
            raise Invalid("the signature is not one of this key over this code") from exc
        return key


@router.post(
    _GATEWAY + "/codes",
    openapi_extra=asks(Action.SHARE),
    status_code=201,
    summary="Make a one-time code for the gateway of an equipment: it is shown this once",
    responses=openapi_examples.answer(EnrolmentCodeResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_code(
    address: OfEquipment,
    registry: RegistryDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> EnrolmentCodeResponse:
    """For owners and engineers of its organisation. It counts for an hour, and for one gateway.

    A former code that nobody used counts no more. The equipment need not be registered yet.
    """
    caller.must(Action.SHARE, address)
    now_ns = clock.now_ns()
    code, issued = enrolling.issued(address, caller.id, now_ns)
    async with registry.change(context, clock) as change:
        await _must_have_none(change, address, now_ns)
        await change.enrolments.add(issued)
    return EnrolmentCodeResponse(code=code, expires=text_of(issued.span.until_ns or now_ns))


@router.post(
    "/enrolments",
    openapi_extra=asks(None),
    status_code=201,
    summary="Enrol a gateway: its credential is shown this once",
    responses=openapi_examples.answer(NewGatewayResponse, status=201)
    | openapi_examples.problems(409, 429),
)
async def enrol(
    form: ClaimForm,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    attempts: SignInAttemptsDep,
    request: Request,
) -> NewGatewayResponse:
    """With a code instead of a credential. What is got holds the streams of that equipment alone.

    The same key may show the same code again within its hour, if the answer was lost: the
    credential is a new one then, and the former counts no more. Ten failures in a minute from one
    address are answered 429 for a while.
    """
    now_ns = clock.now_ns()
    keys = (f"enrolling from {rate_limit.address_of(request.client)}",)
    attempts.begin(keys, now_ns)
    public_key = await asyncio.to_thread(form.checked_key)
    context = request_context.current(request.scope)
    async with registry.change(context, clock) as change:
        before = await change.enrolments.find(enrolling.hashed(form.code))
        used = _used(before, public_key, now_ns)
        if before is None or used is None:
            raise Unauthenticated(
                "the code is not right, was used, or its hour is over",
                hint="have a new one made: testbed gateway code",
            )
        credential, token = await _admit(change, before, used, now_ns)
        await change.enrolments.update(used)
        await change.tokens.add(token)
    attempts.succeeded(keys)
    if before.principal is not None:
        await connections.disconnect(before.principal)
    await connections.announce(token.principal)
    return NewGatewayResponse(
        credential=credential,
        principal=token.principal,
        equipment=str(used.equipment),
        fingerprint=enrolment.fingerprint(public_key),
    )


@router.get(
    _GATEWAY,
    openapi_extra=asks(Action.WATCH),
    summary="The gateway of an equipment",
    responses=openapi_examples.answer(GatewaysResponse),
)
async def gateway(
    address: OfEquipment, registry: RegistryDep, caller: CallerDep
) -> GatewaysResponse:
    """For the people of its organisation; empty if none is let in. Its fingerprint is the one that
    `testbed gateway enrol` printed on the machine.
    """
    caller.must(Action.WATCH, address)
    history = await registry.enrolments.history(address)
    enrolments = {each.principal: each for each in history}
    principals = await registry.principals.in_organisation(address.organisation, caller.at_ns)
    items = []
    for principal in principals:
        if principal.scope.equipment == address:
            used = enrolments.get(principal.id)
            items.append(
                GatewayResponse(
                    principal=principal.id,
                    since=text_of(principal.span.from_ns),
                    fingerprint=used.fingerprint if used else None,
                    code_made_by=used.by if used else None,
                )
            )
    return GatewaysResponse(items=items)


@router.delete(
    _GATEWAY,
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Lock out the gateway of an equipment at once",
)
async def lock_out(
    address: OfEquipment,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """For owners and engineers of its organisation. Its credential, its connection and codes that
    nobody used end. What it has not sent stays on its disk.
    """
    caller.must(Action.SHARE, address)
    now_ns = clock.now_ns()
    async with registry.change(context, clock) as change:
        former = await change.principals.gateways(address)
        if not former:
            raise Unknown(f"{address} has no gateway")
        for name in former:
            gateway = await change.principals.find(name, now_ns)
            if gateway is not None:
                await change.principals.end(gateway, by=caller.id, now_ns=now_ns)
        await change.enrolments.end(address, by=caller.id, now_ns=now_ns)
    for name in former:  # also those that are gone: an earlier kick may have found no broker
        await connections.disconnect(name)
    return Response(status_code=204)


def _used(before: Enrolment | None, public_key: bytes, now_ns: int) -> Enrolment | None:
    """The enrolment of a code that is used with this key, None if the code does not count."""
    try:
        return None if before is None else before.used(public_key, now_ns)
    except Refused:
        return None


async def _must_have_none(registry: Registry, address: EquipmentAddress, now_ns: int) -> None:
    """Two gateways of one equipment would send the same streams; raises Taken."""
    for name in await registry.principals.gateways(address):
        if await registry.principals.find(name, now_ns) is not None:
            raise Taken(
                f"{address} has gateway {name}",
                hint=f"lock it out first: testbed gateway lock-out {address}",
            )


async def _admit(
    registry: Registry, before: Enrolment, used: Enrolment, now_ns: int
) -> tuple[str, Token]:
    """Create the gateway's machine, or replace its tokens: (its credential, the token to store)."""
    name = used.principal or ""
    if before.principal is None:
        await _must_have_none(registry, used.equipment, now_ns)
        scope = Scope(equipment=used.equipment)
        machine = organisations.machine(name, used.equipment.organisation, scope, Span(now_ns))
        await registry.principals.add(machine, used.by)
    elif await registry.principals.find(name, now_ns) is None:
        raise Unauthenticated("the gateway of this code is let in no more")
    for former in await registry.tokens.valid(name, now_ns):
        await registry.tokens.revoke(name, former.id, by=used.by, now_ns=now_ns)
    credential, token = tokens.issued(name, Span(now_ns), label="enrolled", by=used.by)
    return credential.text, token


def _bytes(text: str, length: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Invalid(f"{what} is no base64") from exc
    if len(raw) != length:
        raise Invalid(f"{what} has {len(raw)} bytes, not {length}")
    return raw
