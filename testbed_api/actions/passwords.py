"""Acts on passwords: people set their own, and sign in with it."""

import asyncio
from dataclasses import dataclass

from broker.clock import NS_PER_S, Clock
from broker.credential import Credential
from broker.rights import Principal, PrincipalKind, Span
from testbed_api.actions.caller import Caller
from testbed_api.domain import passwords, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.errors import Unauthenticated
from testbed_api.domain.tokens import Token
from testbed_api.limits.sign_in_attempts import SignInAttempts, place_of
from testbed_api.registry.registry import Registry

SIGNED_IN_S = 12 * 3_600
"""How long the token of a sign-in lasts."""
SIGN_IN_HINT = (
    "there is a password once you set one with `testbed password`; until then sign in with the"
    " credential that you were given, NAME.SECRET. If it is lost, an owner of your organisation"
    " makes a new one: `testbed member remove NAME`, then `testbed member add NAME --role ROLE`"
)
"""The next step where a password is not right; the same whether the person exists or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordActions:
    """Sets passwords, authenticates people by them, and issues the token of a sign-in."""

    registry: Registry
    attempts: SignInAttempts
    clock: Clock

    async def set(self, context: AuditContext, caller: Caller, password: str) -> None:
        """Set the password of the caller; only its argon2id hash is stored.

        Raises Forbidden for a machine, or for a token of only some of the caller's roles, Invalid
        for a password that is too short or too long.
        """
        caller.must_hold_all_roles()
        hashed = await asyncio.to_thread(passwords.hashed, password)
        async with self.registry.change(context, self.clock) as change:
            await change.passwords.set(caller.id, hashed, self.clock.now_ns())

    async def authenticate(self, person: str, password: str, *, source: str) -> Principal:
        """Return the person if the password is right.

        source: the address that the password came from.  Raises Unauthenticated if it is wrong,
        TooMany after too many failures of that person or from that address.
        """
        now_ns = self.clock.now_ns()
        keys = (f"person {person}", f"address {place_of(source)}")
        self.attempts.begin(keys)
        stored_hash = await self.registry.passwords.find(person)
        is_right = await asyncio.to_thread(passwords.is_right, password, stored_hash)
        principal = await self.registry.principals.find(person, now_ns)
        if not is_right or principal is None or principal.kind is not PrincipalKind.PERSON:
            raise Unauthenticated("the person or the password is not right", hint=SIGN_IN_HINT)
        self.attempts.succeeded(keys)
        return principal

    async def sign_in(self, context: AuditContext, person: Principal) -> tuple[Credential, Token]:
        """Issue a token for an authenticated person; it is none for the bus."""
        now_ns = self.clock.now_ns()
        span = Span(now_ns, now_ns + SIGNED_IN_S * NS_PER_S)
        credential, token = tokens.issued(
            person.id, span, label="signed in", by=person.id, bus=False
        )
        async with self.registry.change(context, self.clock) as change:
            stored = await change.tokens.add(token)
        return credential, stored
