"""Paths, queries and bodies that the API accepts, as pydantic models with examples."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker import aggregation, namespace, time_expressions
from broker.aggregation import Aggregate, Aggregation
from broker.clock import DAY_S, NS_PER_S, ns_of, text_of
from broker.errors import Invalid
from broker.namespace import EquipmentAddress, EquipmentKind, StreamAddress
from broker.pydantic_checks import validated_by
from broker.rights import Entry, Party, Role, Scope
from broker.streams import (
    FUTURE_LIMIT_S,
    MOST_ELEMENTS,
    MOST_LIMIT_S,
    MOST_SIGNALS,
    MOST_SPECS,
    PAST_LIMIT_S,
    Dtype,
    Signal,
    StreamSpec,
    Trigger,
)
from broker.units import checked_unit
from testbed_api.actions.tokens import TokenRequest
from testbed_api.domain import audit
from testbed_api.domain.equipment import MOST_NAME, MOST_TEXT
from testbed_api.domain.notices import MOST_EMAIL, checked_email
from testbed_api.stores.port import Window

_Row = TypeVar("_Row")
_AN_ID = {"pattern": "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"}
"""For readers of the schema: what is refused, and in which words, is the namespace's affair."""


Id = Annotated[
    str,
    Field(max_length=40, json_schema_extra=_AN_ID),
    validated_by(lambda text: namespace.checked_id(text, "id")),
]
Space = Annotated[str, Field(max_length=40), validated_by(namespace.checked_space)]
Address = Annotated[str, Field(max_length=122), validated_by(StreamAddress.parse)]
Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Instant = Annotated[str | None, Field(max_length=40)]
RequiredInstant = Annotated[str, Field(max_length=40)]
Number = Annotated[int, Path(ge=1, lt=2**53)]
"""The number of a grant or a token in a path."""
Digest = Annotated[
    str,
    Path(
        pattern="^sha256:[0-9a-f]{64}$",
        description="of an image",
        examples=["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]
"""The digest of an image in a path."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[
    str,
    Field(max_length=20, json_schema_extra={"pattern": aggregation.PATTERN}),
    validated_by(aggregation.width_ns),
]
"""The width of a window, such as 1s."""


DEFAULT_SPAN_S = 3600
EARLIEST_NS, LATEST_NS = -(2**63) + 1, 2**63 - 1


async def _equipment_address(organisation: Id, equipment: Id) -> EquipmentAddress:
    return EquipmentAddress(organisation, equipment)


async def _stream_address(organisation: Id, equipment: Id, stream: Id) -> StreamAddress:
    return StreamAddress(organisation, equipment, stream)


OfEquipment = Annotated[EquipmentAddress, Depends(_equipment_address)]
"""The equipment that a path names."""
OfStream = Annotated[StreamAddress, Depends(_stream_address)]
"""The stream that a path names."""


class Form(BaseModel):
    """A body or a query; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Format(StrEnum):
    """Format of the samples."""

    JSON = "json"
    CSV = "csv"


_TIME = (
    "RFC 3339 with an offset or Z, up to nine digits of a second; in a query also -10m, now, today,"
    " yesterday or a date such as 2026-11-23, by the server's clock, in UTC; "
)


class InSpace(Form):
    """The space of a stream."""

    space: Annotated[Space, Field(description="live, or run-<id>")] = namespace.LIVE


class TimeSpanForm(InSpace):
    """A span of time of a stream in a space."""

    from_: Annotated[
        str | None, Field(alias="from", max_length=40, description=_TIME + "included")
    ] = None
    to: Annotated[str | None, Field(max_length=40, description=_TIME + "not included")] = None

    def between(self, from_ns: int, to_ns: int, *, now_ns: int | None = None) -> tuple[int, int]:
        """The ends of the span in ns, with defaults for ends that are not given; raises Invalid.

        now_ns: of a query; without it the ends must be exact instants.
        """
        begin_ns = from_ns if self.from_ is None else storable(self.from_, now_ns)
        end_ns = to_ns if self.to is None else storable(self.to, now_ns)
        if begin_ns >= end_ns:
            raise Invalid(
                f"the span from {text_of(begin_ns)} to {text_of(end_ns)} is empty or inverted",
                hint="'from' must be earlier than 'to'",
            )
        return begin_ns, end_ns


class GapsWanted(TimeSpanForm):
    """A page of the gaps of a span."""

    cursor: Annotated[
        str | None,
        Field(
            max_length=60,
            pattern=r"^-?\d{1,19}\.\d{1,19}$",
            description="`next` of the page before",
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1_000, description="rows on a page")] = 100

    @property
    def after(self) -> tuple[int, int] | None:
        """The begin and the id of the last gap on the page before, None for the first page."""
        if self.cursor is None:
            return None
        from_ns, _, id_ = self.cursor.partition(".")
        return max(EARLIEST_NS, min(int(from_ns), LATEST_NS)), min(int(id_), LATEST_NS)


class HistoryParameters(TimeSpanForm):
    """Signals, number of points, windows and format of a history."""

    signals: Annotated[list[str], Field(max_length=MOST_SIGNALS, description="none means all")] = []
    points: Annotated[
        int | None, Field(ge=2, le=100_000, description="thin each signal to about so many")
    ] = None
    every: Annotated[
        Width | None,
        Field(description="one value a signal for each window so long, such as 1s, 15min or 1d"),
    ] = None
    how: Annotated[
        Aggregate | None, Field(description="the value of a window of `every`; mean if left out")
    ] = None
    recording: Annotated[
        bool,
        Field(description="the samples go into a recording: the access report says so"),
    ] = False
    format: Format = Format.JSON

    @property
    def way(self) -> str:
        """The way of the read in the access report."""
        return "recording" if self.recording else "history"

    def aggregation(self) -> Aggregation | None:
        """The windows of `every`, None for the samples themselves; raises Invalid."""
        if self.every is not None and self.points is not None:
            raise Invalid("'every' and 'points' at once", hint="give one of them")
        return Aggregation.parse(self.every, self.how)

    def window(self, spec: StreamSpec, now_ns: int) -> Window:
        """The part of a stream that is requested; raises Invalid."""
        names = tuple(dict.fromkeys(self.signals)) or spec.names
        return Window(self.space, spec, names, *self.until(now_ns))

    def facts(self, window: Window) -> dict[str, Any]:
        """The query as the audit notes it."""
        facts = {
            "space": window.space,
            "signals": window.signals,
            "points": self.points,
            "from": text_of(window.from_ns),
            "to": text_of(window.to_ns),
        }
        if self.recording:
            facts["recording"] = True
        if (aggregation := self.aggregation()) is not None:
            facts |= {"every": aggregation.every, "how": aggregation.how}
        return facts

    def until(self, now_ns: int) -> tuple[int, int]:
        """The ends of the span in ns; the default is the last hour."""
        end_ns = now_ns if self.to is None else storable(self.to, now_ns)
        begin_ns = max(end_ns - DEFAULT_SPAN_S * NS_PER_S, EARLIEST_NS)
        return self.between(begin_ns, end_ns, now_ns=now_ns)


def storable(text: str, now_ns: int | None = None) -> int:
    """Parse an instant to ns that fit into a database column; raises Invalid.

    now_ns: with it, the text may be any time expression, such as -10m before then; without it, for
    what changes or deletes something, only an exact instant.
    """
    time_ns = ns_of(text) if now_ns is None else time_expressions.resolve(text, now_ns)
    if not EARLIEST_NS <= time_ns <= LATEST_NS:
        raise Invalid(f"{text} cannot be stored", hint="between the years 1678 and 2262")
    return time_ns


def split_page(rows: Sequence[_Row], limit: int) -> tuple[Sequence[_Row], bool]:
    """One page, and whether more rows follow; rows: up to `limit` + 1, as they were fetched."""
    return rows[:limit], len(rows) > limit


class Paged(Form):
    """One page of a listing."""

    cursor: Annotated[
        str | None, Field(max_length=200, description="`next` of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="rows on a page")] = 100


class HeldWanted(InSpace):
    """One page of what the ledger holds of the streams of an equipment in a space."""

    cursor: Annotated[
        str | None, Field(max_length=122, description="`next` of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="rows on a page")] = 100


Cursor = Annotated[int, Field(ge=0, lt=2**53, description="`next` of the page before")]
Limit = Annotated[int, Field(ge=1, le=1_000, description="rows on a page")]


class DeadLettersWanted(TimeSpanForm):
    """One page of a stream's dead letters, of the span in which they arrived."""

    cursor: Cursor = 0
    limit: Limit = 100


class DeletionsWanted(InSpace):
    """One page of a stream's deletions."""

    cursor: Cursor = 0
    limit: Limit = 100


class OrganisationForm(Form):
    """A new party of the testbed, with its first owner."""

    id: Annotated[Id, Field(examples=["factory"])]
    name: Annotated[Name, Field(examples=["The Factory Ltd"])]
    kind: Annotated[Party, Field(examples=["partner"])]
    owner: Annotated[Id, Field(description="its first owner, a new person", examples=["fay"])]


class RolesForm(Form):
    """The roles of a person in its organisation."""

    roles: Annotated[set[Role], Field(min_length=1, examples=[["engineer"]])]


class EmailForm(Form):
    """Where notices to a member go."""

    email: Annotated[
        Annotated[str, Field(max_length=MOST_EMAIL), validated_by(checked_email)] | None,
        Field(description="null for no mails", examples=["finn@factory.example"]),
    ] = None


class MemberForm(RolesForm, EmailForm):
    """A new member."""

    person: Annotated[Id, Field(examples=["finn"])]


class SiteForm(Form):
    """The place of an equipment, in the levels of ISA-95."""

    enterprise: Annotated[str, Field(max_length=MOST_NAME)] = ""
    site: Annotated[str, Field(max_length=MOST_NAME)] = ""
    area: Annotated[str, Field(max_length=MOST_NAME)] = ""
    line: Annotated[str, Field(max_length=MOST_NAME)] = ""


class EquipmentForm(Form):
    """A machine, or a deployment of a prototype."""

    name: Annotated[Name, Field(examples=["Pump rig 1"])]
    kind: Annotated[EquipmentKind, Field(examples=["simulated"])]
    site: SiteForm = SiteForm()
    description: Text = ""


class SignalForm(Form):
    """One typed series; unit is a UCUM code, 1 without dimension."""

    name: Annotated[str, Field(max_length=64, examples=["Pressure"])]
    dtype: Dtype = Dtype.FLOAT64
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=MOST_ELEMENTS, strict=True)]],
        Field(max_length=1, description="[] for one value a sample, [n] for an array of n"),
    ] = []
    unit: Annotated[str, Field(max_length=40, examples=["bar"])] = "1"
    low: Finite | None = None
    high: Finite | None = None
    resolution: Finite | None = None
    description: Text = ""
    node: Text = ""

    def signal(self) -> Signal:
        """The signal as a stream spec holds it; raises Invalid."""
        try:
            checked_unit(self.unit)
        except Invalid as exc:
            raise Invalid(f"signal {self.name!r}: {exc.message}", hint=exc.hint) from exc
        return Signal(**(self.model_dump() | {"shape": tuple(self.shape)}))


class SpecForm(Form):
    """The signals and the trigger of a stream; the registry numbers its versions."""

    signals: Annotated[list[SignalForm], Field(min_length=1, max_length=MOST_SIGNALS)]
    trigger: Trigger = Trigger.VALUE
    period_s: Annotated[Finite, Field(ge=0)] = 0.0
    max_silence_s: Annotated[Finite, Field(gt=0)] = 10.0
    past_limit_s: Annotated[Finite, Field(gt=0, le=MOST_LIMIT_S)] = PAST_LIMIT_S
    future_limit_s: Annotated[Finite, Field(gt=0, le=MOST_LIMIT_S)] = FUTURE_LIMIT_S
    description: Text = ""

    def spec(self, address: StreamAddress) -> StreamSpec:
        """The spec of a stream; raises Invalid.  The first call loads the grammar of units."""
        return StreamSpec(
            address=address,
            signals=tuple(signal.signal() for signal in self.signals),
            trigger=self.trigger,
            period_s=self.period_s,
            max_silence_s=self.max_silence_s,
            past_limit_s=self.past_limit_s,
            future_limit_s=self.future_limit_s,
            description=self.description,
        )


class NamedSpecForm(SpecForm):
    """A spec with the name of its stream."""

    stream: Annotated[Id, Field(examples=["rig"])]

    def address(self, owner: EquipmentAddress) -> StreamAddress:
        """The address of its stream, one of that equipment."""
        return StreamAddress(owner.organisation, owner.equipment, self.stream)


class SpecsForm(Form):
    """Specs of several streams of one equipment."""

    streams: Annotated[list[NamedSpecForm], Field(min_length=1, max_length=MOST_SPECS)]

    def specs(self, owner: EquipmentAddress) -> list[StreamSpec]:
        """The specs of its streams; raises Invalid, also where a stream is named twice."""
        addresses = [form.address(owner) for form in self.streams]
        if repeated := [address for address, count in Counter(addresses).items() if count > 1]:
            raise Invalid(f"stream {repeated[0]} is named twice")
        return [form.spec(form.address(owner)) for form in self.streams]


class EntryForm(Form):
    """A stream in a space."""

    space: Annotated[Space, Field(examples=["live"])] = "live"
    stream: Annotated[Address, Field(examples=["factory/pump-rig/rig"])]

    def entry(self) -> Entry:
        """The entry as the policy holds it."""
        return Entry(self.space, StreamAddress.parse(self.stream))


Lasting = Annotated[
    Annotated[Finite, Field(gt=0, le=10 * 366 * DAY_S)] | None,
    Field(description="seconds; null is for ever"),
]
Secret = Annotated[SecretStr, Field(max_length=200)]


class CredentialForm(Form):
    """A new machine with its streams; equipment: the one that it is the gateway of."""

    principal: Annotated[Id, Field(examples=["detector"])]
    reads: Annotated[list[EntryForm], Field(max_length=1_000)] = []
    writes: Annotated[list[EntryForm], Field(max_length=1_000)] = []
    equipment: Annotated[str | None, Field(max_length=81, description="organisation/equipment")] = (
        None
    )
    expires_in_s: Lasting = None

    def scope(self) -> Scope:
        """The scope of the machine; raises Invalid."""
        return Scope(
            frozenset(entry.entry() for entry in self.reads),
            frozenset(entry.entry() for entry in self.writes),
            None if self.equipment is None else EquipmentAddress.parse(self.equipment),
        )


class TokenForm(Form):
    """A new token; roles are allowed only in a person's."""

    label: Annotated[
        str, Field(max_length=MOST_NAME, description="what it is for", examples=["my laptop"])
    ] = ""
    expires_in_s: Lasting = None
    roles: Annotated[
        Annotated[set[Role], Field(min_length=1)] | None,
        Field(
            description="which of your roles it holds; null is all of them, as they change",
            examples=[["auditor"]],
        ),
    ] = None

    def request(self) -> TokenRequest:
        """The label, duration and roles as the action takes them."""
        return TokenRequest(label=self.label, lasting_s=self.expires_in_s, roles=self.roles)


class PasswordForm(Form):
    """A new password."""

    password: Annotated[Secret, Field(description="12 to 200 characters")]


class SignInForm(Form):
    """A person and its password."""

    person: Annotated[Id, Field(examples=["fay"])]
    password: Secret


class GrantForm(Form):
    """Streams granted to a company, with the purpose."""

    company: Annotated[Id, Field(examples=["company"])]
    streams: Annotated[list[EntryForm], Field(min_length=1, max_length=1_000)]
    purpose: Annotated[Text, Field(examples=["to find out why the pump stalls"])] = ""
    expires_in_s: Lasting = None


class Numbered(Form):
    """One page of a numbered listing."""

    cursor: Annotated[int, Field(ge=0, lt=2**53, description="`next` of the page before")] = 0
    limit: Annotated[int, Field(ge=1, le=1_000, description="rows on a page")] = 100


class Heads(Numbered):
    """Query of a page of signed heads of the audit."""

    limit: Annotated[int, Field(ge=1, le=1_000, description="rows on a page")] = 1_000
    newest: Annotated[bool, Field(description="only the one signed last")] = False


class EventsWanted(Numbered):
    """Query of a page of audit events."""

    from_: Annotated[
        str | None, Field(alias="from", max_length=40, description=_TIME + "included")
    ] = None
    to: Annotated[str | None, Field(max_length=40, description=_TIME + "not included")] = None
    principal: Annotated[Id | None, Field(description="who did it")] = None
    organisation: Annotated[Id | None, Field(description="whose people and machines")] = None
    action: Annotated[
        Annotated[str, Field(max_length=40), validated_by(audit.checked_action)] | None,
        Field(description="such as share, sign-in or connect"),
    ] = None

    def between(self, now_ns: int) -> tuple[int | None, int | None]:
        """The ends of the span in ns, None for an end that is not given; raises Invalid."""
        return (
            None if self.from_ is None else storable(self.from_, now_ns),
            None if self.to is None else storable(self.to, now_ns),
        )
