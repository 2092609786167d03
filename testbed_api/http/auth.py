"""Who is asking, and what the policy says: every yes and no of the API."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from broker import policy
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unknown
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb
from broker.policy import Target
from broker.rights import Action, Entry, Principal, PrincipalKind, Rights
from testbed_api.domain import tokens
from testbed_api.domain.tokens import Token
from testbed_api.http.dependencies import Given, Parts
from testbed_api.http.middleware import rate_limit
from testbed_api.http.middleware.audit import ACTION, OPEN
from testbed_api.http.problems import Unauthenticated
from testbed_api.registry import token_use
from testbed_api.registry.equipment import Seen

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="credential", description="`principal.secret`, as shown when made"
)


def asks(action: Action | None) -> dict[str, Any]:
    """The `openapi_extra` of a route: what its caller must be allowed, None for an open one."""
    return {ACTION: OPEN if action is None else str(action)}


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind a request, with its rights at that moment."""

    known: Principal
    token: Token
    rights: Rights
    at_ns: int

    @property
    def id(self) -> str:
        """Its name."""
        return self.known.id

    @property
    def organisation(self) -> str:
        """Where it belongs."""
        return self.known.organisation

    @property
    def narrowed(self) -> str:
        """To what its token narrows it, as a hint; empty where it does not."""
        if self.token.roles is None:
            return ""
        return f"this token holds {' and '.join(sorted(self.known.roles))} alone"

    def may(self, action: Action, target: Target = None) -> bool:
        """What the policy says."""
        return policy.decide(self.rights, self.id, action, target, self.at_ns).allowed

    def may_read(self, space: str, address: StreamAddress) -> bool:
        """Reading a stream over HTTP is what subscribing to its data would be."""
        return self.may(Action.SUBSCRIBE, StreamTopic(space, Verb.DATA, address))

    def must(self, action: Action, target: Target = None) -> None:
        """Raise Unknown for what does not exist for it, Forbidden for what it sees and may not do.

        So what is foreign and what is missing answer alike.
        """
        decision = policy.decide(self.rights, self.id, action, target, self.at_ns)
        if decision.allowed:
            return
        if not self._sees(target):
            raise Unknown(f"there is no {_named(target)}", hint=self.narrowed)
        raise Forbidden(
            f"{self.id} may not {action} {_named(target)}: {decision.reason}",
            hint=self.narrowed or "GET /me says what you are",
        )

    def must_read(self, space: str, address: StreamAddress) -> None:
        """Raise Unknown unless it may read."""
        if not self.may_read(space, address):
            raise Unknown(f"there is no stream {address}", hint=self.narrowed)

    @property
    def seen(self) -> Seen:
        """What exists for it, for a listing; `may(SEE, …)` says the same of one."""
        scope, named = self.known.scope, {one.entry.address for one in self.rights.grants}
        named |= {one.address for one in scope.reads | scope.writes}
        streams = frozenset(one for one in named if self.may(Action.SEE, one))
        if self.known.kind is PrincipalKind.MACHINE:
            own = frozenset() if scope.equipment is None else frozenset({scope.equipment})
            return Seen(None, own, streams)
        listed = policy.visible_listings(self.rights, self.known, self.at_ns)
        return Seen(self.organisation, frozenset(one.equipment for one in listed), streams)

    def sees_organisation(self, organisation: str) -> bool:
        """Whether it exists for it: its own, one whose equipment it sees, all for a founder."""
        if organisation == self.organisation or self.may(Action.FOUND):
            return True
        seen = self.seen
        owners = seen.equipment | {one.owner for one in seen.streams}
        return any(one.organisation == organisation for one in owners)

    def _sees(self, target: Target) -> bool:
        match target:
            case None:
                return True
            case str():
                return self.sees_organisation(target)
            case StreamTopic(_, _, address):
                return self.may(Action.SEE, address)
            case StreamAddress() | EquipmentAddress() | Entry():
                return self.may(Action.SEE, target)
        return False


def _named(target: Target) -> str:
    match target:
        case None:
            return "the testbed"
        case str():
            return f"organisation {target!r}"
        case EquipmentAddress():
            return f"equipment {target}"
        case Entry(space, address):
            return f"stream {address} in space {space}"
        case StreamTopic(_, _, address):
            return f"stream {address}"
    return f"stream {target}"


async def again(caller: Caller, parts: Parts) -> Caller | None:
    """The same caller with its rights at this moment; None once its token counts no more."""
    return await _found(parts, caller.id, caller.token.secret_hash)


async def _found(parts: Parts, principal: str, secret_hash: str) -> Caller | None:
    at_ns = parts.clock.now_ns()
    token = await parts.registry.token(principal, secret_hash)
    if token is None or not token.span.covers(at_ns):
        return None
    rights = (await parts.registry.rights_of(principal, at_ns)).with_roles(principal, token.roles)
    known = rights.principal(principal, at_ns)
    return None if known is None else Caller(known, token, rights, at_ns)


async def _caller(
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    parts: Given,
    request: Request,
) -> Caller:
    try:
        caller = await _known(shown, parts)
    except Unauthenticated:
        if rate_limit.shows_one(request.headers.get("authorization", "")):  # else it is counted
            parts.limits.anonymous(rate_limit.address_of(request.client), parts.clock.now_ns())
        raise
    parts.limits.request(caller.organisation, caller.at_ns)
    await token_use.note(parts.registry, caller.token, caller.at_ns)
    return caller


async def _known(shown: HTTPAuthorizationCredentials | None, parts: Parts) -> Caller:
    """Who shows this; raises Unauthenticated."""
    if shown is None:
        raise Unauthenticated(
            "no credential came with the request",
            hint="send Authorization: Bearer principal.secret",
        )
    wrong = Unauthenticated(
        "the credential is not right",
        hint="is it complete, not revoked or expired, and are its roles still yours?",
    )
    try:
        credential = Credential.parse(shown.credentials)
    except Invalid as exc:
        raise wrong from exc
    parts.act.principal = credential.principal  # who it says it is
    caller = await _found(parts, credential.principal, tokens.hashed(credential.secret))
    if caller is None:
        raise wrong
    parts.act.by(caller.id, caller.organisation)
    return caller


Asking = Annotated[Caller, Depends(_caller)]
"""The caller, in a route's signature."""
