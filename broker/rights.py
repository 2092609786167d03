"""Who there is and what was agreed between them: the nouns that the policy decides over.

Everything has a span of time and none of it is ever overwritten: what changes ends, and something
new begins.  So the same answers are given for any moment of the past.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from broker.errors import Invalid
from broker.namespace import EquipmentAddress, StreamAddress


class Party(StrEnum):
    """What kind of organisation it is."""

    PARTNER = "partner"
    """Owns equipment."""
    COMPANY = "company"
    """Tries prototypes on it."""
    INTERMEDIARY = "intermediary"
    """Runs the testbed."""
    AGENCY = "agency"
    """Funds and audits it."""


class Role(StrEnum):
    """What a person does in its organisation."""

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
    """What a principal is."""

    SYSTEM = "system"
    """One of the testbed's own parts, such as the recorder."""
    PERSON = "person"
    MACHINE = "machine"
    """No person: a gateway, a deployment of a prototype, a build server."""


class Action(StrEnum):
    """What one can do.  Reading a stream over HTTP is what subscribing to its data would be."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    ENTER = "enter"
    """Be known: ask who one is, and look after one's own tokens."""
    SEE = "see"
    """Know that an equipment or a stream is there, and what it is."""
    REGISTER = "register"
    DESCRIBE = "describe"
    """Propose a stream's spec."""
    SAMPLE = "sample"
    """Look at the example that an equipment is listed with."""
    SHARE = "share"
    """List, grant, refuse, revoke, enrol, keep and delete."""
    PAUSE = "pause"
    ASK = "ask"
    """Ask for a grant."""
    WITHDRAW = "withdraw"
    """Give a grant back."""
    MANAGE = "manage"
    """Make members of an organisation, and remove them."""
    ISSUE = "issue"
    """Make and revoke the credentials of an organisation's machines."""
    WATCH = "watch"
    """See how a stream is, and who has access to it."""
    AUDIT = "audit"
    OPERATE = "operate"
    """Run the testbed: back it up, restore it, count it."""
    FOUND = "found"
    """Make organisations, with their first owner."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A stream in a space: one line of a grant or a scope."""

    space: str
    address: StreamAddress


@dataclass(frozen=True, slots=True)
class Span:
    """From `from_ns` on, before `until_ns`; None is for ever."""

    from_ns: int = 0
    until_ns: int | None = None

    def __post_init__(self) -> None:
        if self.until_ns is not None and self.until_ns < self.from_ns:
            raise Invalid("a span ends before it begins")

    def covers(self, at_ns: int) -> bool:
        """Whether this instant lies in it."""
        return self.from_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)

    def contains(self, other: "Span") -> bool:
        """Whether all of another lies in it."""
        if self.until_ns is None:
            return self.from_ns <= other.from_ns
        ends = other.until_ns is not None and other.until_ns <= self.until_ns
        return ends and self.from_ns <= other.from_ns

    def ended(self, at_ns: int) -> "Span":
        """The same, at an end by that instant."""
        if self.until_ns is not None and self.until_ns <= at_ns:
            return self
        return Span(self.from_ns, max(at_ns, self.from_ns))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a machine is for.  equipment: all that it sends in `live`, as its gateway does."""

    reads: frozenset[Entry] = frozenset()
    writes: frozenset[Entry] = frozenset()
    equipment: EquipmentAddress | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with what it is over a span; whoever changes is another one from then on."""

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
        if self.kind is not PrincipalKind.PERSON and self.roles:
            raise Invalid(f"{self.id} is no person, and has no roles")
        if equipment is not None and equipment.organisation != self.organisation:
            raise Invalid(f"{self.id} of {self.organisation} is no gateway of {equipment}")


@dataclass(frozen=True, slots=True)
class Grant:
    """A company may read a stream that is not its own, in one space."""

    id: int
    company: str
    entry: Entry
    span: Span


@dataclass(frozen=True, slots=True)
class Pause:
    """No grant of an owner counts meanwhile; of one company or one equipment where it is named."""

    owner: str
    company: str | None = None
    equipment: str | None = None
    span: Span = Span()


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of a stream's past, `to_ns` not included, shown as an example of it."""

    entry: Entry
    from_ns: int
    to_ns: int

    def __post_init__(self) -> None:
        if self.from_ns >= self.to_ns:
            raise Invalid(f"the sample of {self.entry.address} ends before it begins")


@dataclass(frozen=True, slots=True)
class Listing:
    """An equipment exists for these organisations too; None is everybody.

    sample: what their people may read without a grant.
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
    """All that decides, or as much of it as concerns one principal or one equipment.

    organisations: what kind each is.  principals: at no moment two of one id.  known: the streams
    that there are, in the spaces in which somebody may write them; with a machine's own lists this
    is what exact topics are made of.
    """

    organisations: Mapping[str, Party] = field(default_factory=dict)
    principals: tuple[Principal, ...] = ()
    grants: tuple[Grant, ...] = ()
    pauses: tuple[Pause, ...] = ()
    listings: tuple[Listing, ...] = ()
    known: frozenset[Entry] = frozenset()

    def principal(self, id_: str, at_ns: int) -> Principal | None:
        """Who that is at this instant, None if nobody."""
        for one in self.principals:
            if one.id == id_ and one.span.covers(at_ns):
                return one
        return None

    def with_roles(self, principal: str, roles: frozenset[Role] | None) -> "Rights":
        """What a token of some roles leaves of these: its person has those alone, if it has them.

        None leaves everything.  Whoever has none of them is nobody; so is a machine, which has no
        roles.
        """
        if roles is None:
            return self
        left = (
            replace(one, roles=one.roles & roles) if one.id == principal else one
            for one in self.principals
            if one.id != principal or one.roles & roles
        )
        return replace(self, principals=tuple(left))
