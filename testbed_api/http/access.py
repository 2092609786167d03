"""Who is asking, and what the policy says: every yes and no of the API."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from broker import policy
from broker.errors import Forbidden, Invalid, Unknown
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb
from broker.policy import Action, Holding, Rights, Role
from broker.settings import Credential
from testbed_api.errors import Unauthenticated
from testbed_api.parts import Given


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind a request, with its rights at this moment."""

    principal: str
    holding: Holding
    at_ns: int

    @property
    def is_administrator(self) -> bool:
        """Whether it runs the testbed."""
        return self.holding.role is Role.ADMINISTRATOR

    def may_read(self, space: str, address: StreamAddress) -> bool:
        """Reading a stream over HTTP is what subscribing to its data would be."""
        rights = Rights({self.principal: self.holding})
        topic = StreamTopic(space, Verb.DATA, address)
        return policy.decide(rights, self.principal, Action.SUBSCRIBE, topic, self.at_ns).allowed

    def sees(self, address: StreamAddress) -> bool:
        """Whether the stream exists for it: what it may read or write in some space."""
        listed = self.holding.reads | self.holding.writes
        return self.is_administrator or any(one.address == address for one in listed)

    def sees_equipment(self, address: EquipmentAddress) -> bool:
        """Whether the equipment exists for it: it sees one of its streams."""
        listed = self.holding.reads | self.holding.writes
        return self.is_administrator or any(one.address.owner == address for one in listed)

    def writes(self, address: StreamAddress) -> bool:
        """Whether it publishes the stream in some space."""
        return any(one.address == address for one in self.holding.writes)

    def must_read(self, space: str, address: StreamAddress) -> None:
        """Raise Unknown unless it may read: what is foreign and what is missing answer alike."""
        if not self.may_read(space, address):
            raise Unknown(f"there is no stream {address} in space {space}")

    def must_own(self, address: EquipmentAddress) -> None:
        """Raise Forbidden unless it publishes for this equipment."""
        own = any(one.address.owner == address for one in self.holding.writes)
        if not own and not self.is_administrator:
            raise Forbidden(f"{self.principal} does not publish for {address}", hint="ask for a credential that writes one of its streams")

    def must_administrate(self) -> None:
        """Raise Forbidden unless it runs the testbed."""
        if not self.is_administrator:
            raise Forbidden(f"{self.principal} is no administrator")


async def _caller(request: Request, parts: Given) -> Caller:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("no credential came with the request", hint="send Authorization: Bearer principal.secret")
    wrong = Unauthenticated("the credential is not right", hint="is it complete, and not revoked or expired?")
    try:
        shown = Credential.parse(text.strip())
    except Invalid as exc:
        raise wrong from exc
    found = await parts.registry.principal(shown.principal)
    at_ns = parts.clock.now_ns()
    if found is None or not found.proves(shown.secret):
        raise wrong
    if found.holding.expires_ns is not None and found.holding.expires_ns <= at_ns:
        raise wrong
    return Caller(found.id, found.holding, at_ns)


Asking = Annotated[Caller, Depends(_caller)]
"""The caller, in a route's signature."""
