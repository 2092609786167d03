"""Authentication of requests by bearer credentials, and the action that a route asks for."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Invalid
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Action
from testbed_api.actions import caller as callers
from testbed_api.actions.caller import Caller
from testbed_api.domain import tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.errors import Unauthenticated
from testbed_api.http import idempotency, request_context
from testbed_api.http.dependencies import ClockDep, QuotasDep, RegistryDep, TokenUsesDep
from testbed_api.http.idempotency import Replay
from testbed_api.http.middleware import rate_limit
from testbed_api.http.request_context import ACTION, OPEN
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights import About

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="credential", description="`principal.secret`, as shown when made"
)


def asks(action: Action | None) -> dict[str, Any]:
    """The `openapi_extra` of a route: the action that its caller must be allowed, None for an open
    route.
    """
    return {ACTION: OPEN if action is None else str(action)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """Finds the caller that a principal and a hash of its secret stand for."""

    registry: Registry
    clock: Clock

    async def find(self, principal: str, secret_hash: str, about: About = None) -> Caller | None:
        """The caller with its rights at this moment; None if the token does not count.

        about: the only equipment or stream that it acts on, None for all.
        """
        at_ns = self.clock.now_ns()
        return await callers.find(self.registry, principal, secret_hash, at_ns, about)


async def _authenticator(registry: RegistryDep, clock: ClockDep) -> Authenticator:
    return Authenticator(registry=registry, clock=clock)


AuthenticatorDep = Annotated[Authenticator, Depends(_authenticator)]


async def _caller(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    authenticator: AuthenticatorDep,
    quotas: QuotasDep,
    token_uses: TokenUsesDep,
    request: Request,
) -> Caller:
    try:
        caller = await _authenticated(bearer, authenticator, request)
    except Unauthenticated:
        if rate_limit.has_credential(request.headers.get("authorization", "")):
            address = rate_limit.address_of(request.client)
            quotas.anonymous(address)
        raise  # without a credential the middleware has counted it
    quotas.request(caller.organisation)
    await token_uses.note(caller.token, caller.at_ns)
    return caller


async def _authenticated(
    bearer: HTTPAuthorizationCredentials | None, authenticator: Authenticator, request: Request
) -> Caller:
    """The caller whose credential came with a request; raises Unauthenticated."""
    if bearer is None:
        raise Unauthenticated(
            "no credential came with the request",
            hint="send Authorization: Bearer principal.secret",
        )
    wrong = Unauthenticated(
        "the credential is not right",
        hint="is it complete, not revoked or expired, and are its roles still yours?",
    )
    try:
        credential = Credential.parse(bearer.credentials)
    except Invalid as exc:
        raise wrong from exc
    request_context.identify(request.scope, credential.principal)
    secret_hash = tokens.hashed(credential.secret)
    caller = await authenticator.find(credential.principal, secret_hash, _about(request))
    if caller is None:
        raise wrong
    request_context.identify(request.scope, caller.id, caller.organisation)
    return caller


def _about(request: Request) -> About:
    """The equipment or the stream that the path of a request names."""
    named = request.path_params
    try:
        if "stream" in named:
            return StreamAddress(named["organisation"], named["equipment"], named["stream"])
        if "equipment" in named:
            return EquipmentAddress(named["organisation"], named["equipment"])
    except Invalid:  # the route refuses the path
        return None
    return None


CallerDep = Annotated[Caller, Depends(_caller)]
"""The authenticated caller of a route."""


async def _context(
    _caller: CallerDep,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    registry: RegistryDep,
    clock: ClockDep,
    request: Request,
) -> AuditContext:
    context = request_context.current(request.scope)
    if bearer is None or not idempotency.is_sent(request):
        return context
    secret = Credential.parse(bearer.credentials).secret
    try:
        key = await idempotency.accepted(request, secret, registry, clock)
    except Replay as replay:
        context.entry.facts["repeats"] = replay.request
        raise
    return replace(context, key=key)


ContextDep = Annotated[AuditContext, Depends(_context)]
"""The context of a request whose caller is authenticated; a route that takes it writes the audit
entry with its change, or adds facts to the entry that the middleware writes.
"""
