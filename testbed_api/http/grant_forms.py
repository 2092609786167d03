"""Bodies that the routes of grants accept: what is asked for, selected, and for how long."""

from typing import Annotated

from pydantic import Field

from broker.namespace import EquipmentAddress
from broker.pydantic_checks import validated_by
from testbed_api.actions.proposals import SpanProposal, WantedStreams
from testbed_api.domain.grants import GrantSelection
from testbed_api.http.schemas import (
    EntryForm,
    Form,
    Id,
    Instant,
    Lasting,
    Space,
    Text,
    storable,
)


class SpanForm(Form):
    """The span of a grant: its begin, and its end or its duration."""

    from_: Annotated[Instant, Field(alias="from", description="now if left out")] = None
    until: Annotated[Instant, Field(description="not included")] = None
    expires_in_s: Lasting = None

    def proposal(self) -> SpanProposal:
        """The span that is proposed; raises Invalid for an instant that is none."""
        return SpanProposal(
            from_ns=None if self.from_ is None else storable(self.from_),
            until_ns=None if self.until is None else storable(self.until),
            lasting_s=self.expires_in_s,
        )


class ReasonForm(Form):
    """The reason of a refusal."""

    reason: Annotated[Text, Field(description="the company reads it")] = ""


class EquipmentEntryForm(Form):
    """All streams that an equipment has at that moment, in a space."""

    space: Annotated[Space, Field(examples=["live"])] = "live"
    equipment: Annotated[
        str,
        Field(max_length=81, examples=["factory/pump-rig"]),
        validated_by(EquipmentAddress.parse),
    ]

    def entry(self) -> tuple[str, EquipmentAddress]:
        """The space and the equipment."""
        return self.space, EquipmentAddress.parse(self.equipment)


class RequestForm(SpanForm):
    """Streams that a company asks for, or all of an equipment, with the purpose and the span."""

    streams: Annotated[tuple[EntryForm, ...], Field(max_length=1_000)] = ()
    equipment: Annotated[
        tuple[EquipmentEntryForm, ...],
        Field(max_length=100, description="all streams that each has at that moment"),
    ] = ()
    purpose: Annotated[Text, Field(min_length=1, examples=["to find out why the pump stalls"])]

    def wanted(self) -> WantedStreams:
        """The streams that are asked for; raises Invalid for none."""
        return WantedStreams(
            entries=[each.entry() for each in self.streams],
            equipment=[each.entry() for each in self.equipment],
        )


class SelectionForm(Form):
    """The grants that an act is about: by number, or those of an equipment, a company or both."""

    numbers: Annotated[
        tuple[Annotated[int, Field(ge=1, lt=2**53)], ...],
        Field(max_length=1_000, description="ids; each must be in a state for the act"),
    ] = ()
    equipment: Annotated[
        str | None,
        Field(max_length=81, description="organisation/equipment: all that the act can change"),
    ] = None
    company: Annotated[
        Id | None, Field(description="the organisation that asked or got: all that it can change")
    ] = None

    def selection(self) -> GrantSelection:
        """The selection as the actions take it; raises Invalid."""
        equipment = None if self.equipment is None else EquipmentAddress.parse(self.equipment)
        numbers = tuple(dict.fromkeys(self.numbers))
        return GrantSelection(numbers=numbers, equipment=equipment, company=self.company)


class ApprovalForm(SelectionForm, SpanForm):
    """Requests to approve, with a span that is no longer than was asked for."""


class RefusalForm(SelectionForm, ReasonForm):
    """Requests to refuse, or grants to revoke, with a reason."""
