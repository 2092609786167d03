"""Organisations, and the names that people and machines may have."""

from collections.abc import Collection
from dataclasses import dataclass

from broker.errors import Invalid
from broker.namespace import checked_id
from broker.rights import Party, Principal, PrincipalKind, Role, Scope, Span
from testbed_api.domain.equipment import MOST_NAME, checked_text

SYSTEM_PREFIX = "testbed-"
INTERMEDIARY = "testbed"
"""The organisation that runs the testbed, made at the first start."""


@dataclass(frozen=True, slots=True)
class Organisation:
    """A party: it owns equipment, runs prototypes, or runs or funds the testbed."""

    id: str
    name: str
    kind: Party = Party.PARTNER

    def __post_init__(self) -> None:
        checked_id(self.id, "organisation")
        checked_text(self.name, "name", MOST_NAME)


@dataclass(frozen=True, slots=True)
class Member:
    """A person of an organisation; email: to which notices go, None for no mails."""

    principal: Principal
    email: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """A person who is to become a member; email: to which notices go, None for no mails."""

    person: str
    roles: Collection[Role]
    email: str | None = None


def person(id_: str, organisation: str, roles: Collection[Role], now_ns: int) -> Principal:
    """A member of an organisation from now on; raises Invalid for a name or roles that are none."""
    if not roles:
        raise Invalid(f"{id_!r} has no role", hint=f"give it one of {', '.join(Role)}")
    checked_principal(id_)
    return Principal(id_, organisation, PrincipalKind.PERSON, frozenset(roles), span=Span(now_ns))


def machine(id_: str, organisation: str, scope: Scope, span: Span) -> Principal:
    """A machine of an organisation; raises Invalid for what it cannot have in its scope."""
    checked_principal(id_)
    foreign = [
        entry for entry in sorted(scope.writes) if entry.address.organisation != organisation
    ]
    if foreign:
        raise Invalid(
            f"{id_} of {organisation} cannot publish {foreign[0].address}",
            hint="a machine publishes streams of its own organisation alone",
        )
    return Principal(id_, organisation, PrincipalKind.MACHINE, scope=scope, span=span)


def checked_principal(text: str) -> str:
    """Give `text` back if it can name a person or a machine; raises Invalid."""
    checked_id(text, "principal")
    if text.startswith(SYSTEM_PREFIX):
        raise Invalid(
            f"principal {text!r} is a part of the testbed itself",
            hint=f"choose one that does not begin with {SYSTEM_PREFIX!r}",
        )
    if "--" in text:
        raise Invalid(
            f"principal {text!r} has '--' in it",
            hint="that separates it from the rest of a client id",
        )
    return text
