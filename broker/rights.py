"""Organisations, principals, grants, pauses and listings: the facts that the policy decides over.

Each has a span of time and none is ever overwritten: a change ends one and begins another.  So the
policy gives the same answers for any moment of the past.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from broker.errors import Invalid
from broker.namespace import EquipmentAddress, StreamAddress


class Party(StrEnum):
    """Kind of an organisation."""

    PARTNER = "partner"
    """Owns equipment."""
    COMPANY = "company"
    """Tries prototypes on it."""
    INTERMEDIARY = "intermediary"
    """Runs the testbed."""
    AGENCY = "agency"
    """Funds and audits it."""


class Role(StrEnum):
    """Role of a person in its organisation."""

    OWNER = "owner"
    """Answers for it: members, and all that the others may do but auditing everything."""
    ENGINEER = "engineer"
    """Knows its equipment: registers, describes and shares it."""
    DEVELOPER = "developer"
    """Works with the data: asks for streams and reads what was granted."""
    OPERATOR = "operator"
    """Keeps things running: watches, and pauses what does harm."""
    AUDITOR = "auditor"
    """Reads what was done, and changes nothing."""


class PrincipalKind(StrEnum):
    """Kind of a principal."""

    SYSTEM = "system"
    """One of the testbed's own parts, such as the recorder."""
    PERSON = "person"
    MACHINE = "machine"
    """No person: a gateway, a deployment of a prototype, a build server."""
    RUNNER = "runner"
    """A site that runs deployments: it reads its work and reports on it, and nothing else."""


class Action(StrEnum):
    """An action that a principal may try.  Reading a stream over HTTP counts as SUBSCRIBE."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    ENTER = "enter"
    """Use the API at all: read one's own principal, and manage one's own tokens."""
    SEE = "see"
    """Know that an equipment or a stream exists, and its description."""
    REGISTER = "register"
    DESCRIBE = "describe"
    """Propose a stream's spec."""
    SAMPLE = "sample"
    """Read the sample that an equipment is listed with."""
    SHARE = "share"
    """List, grant, refuse, revoke, enrol, keep and delete."""
    PAUSE = "pause"
    ASK = "ask"
    """Ask for a grant."""
    WITHDRAW = "withdraw"
    """Give a grant back."""
    MANAGE = "manage"
    """Add members to an organisation, remove them, and delete its runs."""
    ISSUE = "issue"
    """Make and revoke the credentials of an organisation's machines."""
    WATCH = "watch"
    """See the freshness of a stream, and the principals that have access to it."""
    AUDIT = "audit"
    OPERATE = "operate"
    """Run the testbed: back it up, restore it, count it."""
    REVIEW = "review"
    """Read the runs of an organisation, and their evidence."""
    SUBMIT = "submit"
    """Hand runs over to the testbed."""
    FOUND = "found"
    """Make organisations, with their first owner."""
    DEPLOY = "deploy"
    """Deploy prototypes of an organisation and promote them; its images and secrets."""
    HALT = "halt"
    """Stop a deployment."""
    OVERSEE = "oversee"
    """See the deployments of an organisation and their state, without what they print."""
    HOST = "host"
    """Enrol the runners of an organisation, and lock them out."""
    RUN = "run"
    """Be given deployments to run, and report on them."""


class GrantState(StrEnum):
    """The stage that a grant has reached."""

    ASKED = "asked"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    """Ended by the owner."""
    WITHDRAWN = "withdrawn"
    """Ended by the company, or given up before it was answered."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A stream in a space: one line of a grant or a scope."""

    space: str
    address: StreamAddress


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time from `from_ns` until before `until_ns`, ns since 1970; None has no end."""

    from_ns: int = 0
    until_ns: int | None = None

    def __post_init__(self) -> None:
        if self.until_ns is not None and self.until_ns < self.from_ns:
            raise Invalid("a span ends before it begins")

    def covers(self, at_ns: int) -> bool:
        """Return whether an instant lies in the span."""
        return self.from_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)

    def contains(self, other: "Span") -> bool:
        """Return whether another span lies in this one."""
        if self.until_ns is None:
            return self.from_ns <= other.from_ns
        ends = other.until_ns is not None and other.until_ns <= self.until_ns
        return ends and self.from_ns <= other.from_ns

    def ended(self, at_ns: int) -> "Span":
        """Return the span cut off at an instant, at the latest."""
        if self.until_ns is not None and self.until_ns <= at_ns:
            return self
        return Span(self.from_ns, max(at_ns, self.from_ns))


@dataclass(frozen=True, slots=True)
class Scope:
    """Streams that a machine reads and writes.

    equipment: for a gateway, the equipment whose streams in `live` it writes all.
    """

    reads: frozenset[Entry] = frozenset()
    writes: frozenset[Entry] = frozenset()
    equipment: EquipmentAddress | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A person, machine or part of the testbed, as it is over a span; a change begins a new one."""

    id: str
    organisation: str
    kind: PrincipalKind
    roles: frozenset[Role] = frozenset()
    scope: Scope = Scope()
    span: Span = Span()

    def __post_init__(self) -> None:
        equipment = self.scope.equipment
        if self.kind is PrincipalKind.PERSON and self.scope != Scope():
            raise Invalid(f"{self.id} is a person, who has roles and no scope")
        if self.kind is PrincipalKind.RUNNER and self.scope != Scope():
            raise Invalid(f"{self.id} is a runner, which reads and publishes nothing")
        if self.kind is not PrincipalKind.PERSON and self.roles:
            raise Invalid(f"{self.id} is no person, and has no roles")
        if equipment is not None and equipment.organisation != self.organisation:
            raise Invalid(f"{self.id} of {self.organisation} is no gateway of {equipment}")


@dataclass(frozen=True, slots=True)
class Grant:
    """A right of a company to read a stream that is not its own, in one space."""

    id: int
    company: str
    entry: Entry
    span: Span


@dataclass(frozen=True, slots=True)
class Pause:
    """A span in which the grants of an owner do not count.

    company, equipment: only grants to that company or on that equipment, None for all.
    """

    owner: str
    company: str | None = None
    equipment: str | None = None
    span: Span = Span()


@dataclass(frozen=True, slots=True)
class Sample:
    """A stretch of a stream's past that its equipment is listed with; `to_ns` is not included."""

    entry: Entry
    from_ns: int
    to_ns: int

    def __post_init__(self) -> None:
        if self.from_ns >= self.to_ns:
            raise Invalid(f"the sample of {self.entry.address} ends before it begins")


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing: these organisations may see an equipment; None for all organisations.

    sample: may be read by their people without a grant.
    """

    equipment: EquipmentAddress
    organisations: frozenset[str] | None
    span: Span = Span()
    sample: Sample | None = None

    def __post_init__(self) -> None:
        if self.organisations is not None and not self.organisations:
            raise Invalid(f"{self.equipment} is listed to nobody", hint="end the listing instead")
        if self.sample is not None and self.sample.entry.address.owner != self.equipment:
            raise Invalid(
                f"the sample is of {self.sample.entry.address}, not of {self.equipment}",
                hint="choose one of the equipment's own streams",
            )


@dataclass(frozen=True, slots=True)
class Rights:
    """All facts that the policy decides over, or those of one principal or one equipment.

    organisations: kind of each.  principals: at no moment two of one id.  known: the registered
    streams, in the spaces in which some principal may write them; exact topics are made of these
    and of a machine's own lists.
    """

    organisations: Mapping[str, Party] = field(default_factory=dict)
    principals: tuple[Principal, ...] = ()
    grants: tuple[Grant, ...] = ()
    pauses: tuple[Pause, ...] = ()
    listings: tuple[Listing, ...] = ()
    known: frozenset[Entry] = frozenset()

    def principal(self, id_: str, at_ns: int) -> Principal | None:
        """Return the principal of an id at an instant, None if there is none."""
        for principal in self.principals:
            if principal.id == id_ and principal.span.covers(at_ns):
                return principal
        return None

    def with_roles(self, principal: str, roles: frozenset[Role] | None) -> "Rights":
        """Return the rights left by a token of some roles: its person has only those of its roles.

        None leaves all.  A person with none of them is left out; so is a machine, which has no
        roles.
        """
        if roles is None:
            return self
        left = (
            replace(each, roles=each.roles & roles) if each.id == principal else each
            for each in self.principals
            if each.id != principal or each.roles & roles
        )
        return replace(self, principals=tuple(left))
