"""Who is asking, and what the policy says: every yes and no of the API."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unknown
from broker.namespace import LIVE, EquipmentAddress, StreamAddress, StreamTopic, Verb
from testbed_api.domain import holding as policy
from testbed_api.domain.access import Principal
from testbed_api.domain.holding import Action, Holding, Rights, Role
from testbed_api.errors import Unauthenticated
from testbed_api.parts import Given, Parts

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="credential", description="`principal.secret`, as shown when made"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind a request, with its rights at that moment."""

    known: Principal
    at_ns: int

    @property
    def id(self) -> str:
        """Its name."""
        return self.known.id

    @property
    def holding(self) -> Holding:
        """What it holds."""
        return self.known.holding

    @property
    def is_administrator(self) -> bool:
        """Whether it runs the testbed."""
        return self.holding.role is Role.ADMINISTRATOR

    @property
    def listed(self) -> frozenset[StreamAddress] | None:
        """The streams that exist for it: those it may read or write; None means all."""
        if self.is_administrator:
            return None
        return frozenset(one.address for one in self.holding.reads | self.holding.writes)

    def may_read(self, space: str, address: StreamAddress) -> bool:
        """Reading a stream over HTTP is what subscribing to its data would be."""
        return self._may(Action.SUBSCRIBE, space, address)

    def may_write(self, space: str, address: StreamAddress) -> bool:
        """Whether it publishes the stream in this space."""
        return self._may(Action.PUBLISH, space, address)

    def may_describe(self, address: StreamAddress) -> bool:
        """A spec holds in every space: whoever publishes the stream in one of them proposes it."""
        return any(self.may_write(one.space, address) for one in self.holding.writes)

    def sees(self, address: StreamAddress) -> bool:
        """Whether the stream exists for it: it may read or write it in some space."""
        spaces = {LIVE, *(one.space for one in self.holding.reads | self.holding.writes)}
        return any(self.may_read(each, address) or self.may_write(each, address) for each in spaces)

    def sees_equipment(self, address: EquipmentAddress) -> bool:
        """Whether the equipment exists for it: it sees one of its streams."""
        listed = self.listed
        return listed is None or any(one.owner == address for one in listed)

    def must_read(self, space: str, address: StreamAddress) -> None:
        """Raise Unknown unless it may read: what is foreign and what is missing answer alike."""
        if not self.may_read(space, address):
            raise Unknown(f"there is no stream {address}")

    def must_see(self, address: StreamAddress) -> None:
        """Raise Unknown unless the stream exists for it."""
        if not self.sees(address):
            raise Unknown(f"there is no stream {address}")

    def must_describe(self, address: StreamAddress) -> None:
        """Raise Forbidden unless it publishes this stream, or runs the testbed."""
        if not (self.may_describe(address) or self.is_administrator):
            raise Forbidden(
                f"{self.id} does not publish {address}", hint="ask for a credential that writes it"
            )

    def must_own(self, address: EquipmentAddress) -> None:
        """Raise Forbidden unless it publishes for this equipment, or runs the testbed."""
        streams = {one.address for one in self.holding.writes if one.address.owner == address}
        if not (any(map(self.may_describe, streams)) or self.is_administrator):
            raise Forbidden(
                f"{self.id} does not publish for {address}",
                hint="ask for a credential that writes one of its streams",
            )

    def must_administrate(self) -> None:
        """Raise Forbidden unless it runs the testbed."""
        if not self.is_administrator:
            raise Forbidden(f"{self.id} is no administrator")

    def _may(self, action: Action, space: str, address: StreamAddress) -> bool:
        rights = Rights({self.id: self.holding})
        topic = StreamTopic(space, Verb.DATA, address)
        return policy.decide(rights, self.id, action, topic, self.at_ns).allowed


async def again(caller: Caller, parts: Parts) -> Caller | None:
    """The same caller with its rights at this moment; None once its credential is revoked."""
    found = await parts.registry.principal(caller.id)
    if found is None or found.secret_hash != caller.known.secret_hash:
        return None
    return Caller(found, parts.clock.now_ns())


async def _caller(
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)], parts: Given
) -> Caller:
    if shown is None:
        raise Unauthenticated(
            "no credential came with the request",
            hint="send Authorization: Bearer principal.secret",
        )
    wrong = Unauthenticated(
        "the credential is not right", hint="is it complete, and not revoked or expired?"
    )
    try:
        credential = Credential.parse(shown.credentials)
    except Invalid as exc:
        raise wrong from exc
    found = await parts.registry.principal(credential.principal)
    at_ns = parts.clock.now_ns()
    if found is None or not found.proves(credential.secret):
        raise wrong
    if found.holding.expires_ns is not None and found.holding.expires_ns <= at_ns:
        raise wrong
    return Caller(found, at_ns)


Asking = Annotated[Caller, Depends(_caller)]
"""The caller, in a route's signature."""
