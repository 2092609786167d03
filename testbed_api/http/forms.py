"""The bodies and answers of the API, as pydantic models with examples."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from broker import namespace
from broker.batch import Kind
from broker.errors import BedError
from broker.namespace import StreamAddress
from broker.policy import Entry, Role
from broker.streams import Dtype, Signal, StreamSpec, Trigger
from broker.units import checked_unit
from testbed_api.domain.equipment import MOST_NAME, MOST_TEXT


def _refusing(check: Any) -> AfterValidator:
    def validate(value: Any) -> Any:
        try:
            check(value)
        except BedError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(validate)


Id = Annotated[
    str,
    Field(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"),
    _refusing(lambda text: namespace.checked_id(text, "id")),
]
Space = Annotated[str, Field(max_length=40), _refusing(namespace.checked_space)]
Address = Annotated[str, Field(max_length=122), _refusing(StreamAddress.parse)]
Unit = Annotated[str, Field(max_length=40), _refusing(checked_unit)]
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Form(BaseModel):
    """A body: nothing that is not known, nothing that is not sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OrganisationForm(Form):
    """A party of the testbed."""

    id: Annotated[Id, Field(examples=["factory"])]
    name: Annotated[str, Field(max_length=MOST_NAME, examples=["The Factory Ltd"])]


class SiteForm(Form):
    """Where it stands, in the levels of ISA-95."""

    enterprise: Text = ""
    site: Text = ""
    area: Text = ""
    line: Text = ""


class EquipmentForm(Form):
    """A machine, or a deployment of a prototype."""

    name: Annotated[str, Field(max_length=MOST_NAME, examples=["Pump rig 1"])]
    kind: Annotated[Kind, Field(examples=["simulated"])]
    site: SiteForm = SiteForm()
    description: Text = ""


class SignalForm(Form):
    """One typed series."""

    name: Annotated[str, Field(max_length=64, examples=["Pressure"])]
    dtype: Dtype = Dtype.FLOAT64
    shape: Annotated[list[int], Field(max_length=0)] = []
    unit: Annotated[Unit, Field(examples=["bar"])] = "1"
    low: Finite | None = None
    high: Finite | None = None
    resolution: Finite | None = None
    description: Text = ""
    node: Text = ""


class SpecForm(Form):
    """What a stream's columns mean; the registry gives it its version."""

    signals: Annotated[list[SignalForm], Field(min_length=1, max_length=1_000)]
    trigger: Trigger = Trigger.VALUE
    period_s: Annotated[Finite, Field(ge=0)] = 0.0
    max_silence_s: Annotated[Finite, Field(gt=0)] = 10.0
    description: Text = ""

    def spec(self, address: StreamAddress) -> StreamSpec:
        """As the words have it; raises Invalid."""
        return StreamSpec(
            address=address,
            signals=tuple(
                Signal(**(one.model_dump() | {"shape": ()})) for one in self.signals
            ),
            trigger=self.trigger,
            period_s=self.period_s,
            max_silence_s=self.max_silence_s,
            description=self.description,
        )


class EntryForm(Form):
    """A stream in a space."""

    space: Annotated[Space, Field(examples=["live"])] = "live"
    stream: Annotated[Address, Field(examples=["factory/pump-rig/rig"])]

    def entry(self) -> Entry:
        """As the policy has it."""
        return Entry(self.space, StreamAddress.parse(self.stream))


class CredentialForm(Form):
    """Who is to hold what."""

    principal: Annotated[Id, Field(examples=["detector"])]
    role: Annotated[Role, Field(examples=["member"])] = Role.MEMBER
    reads: Annotated[list[EntryForm], Field(max_length=1_000)] = []
    writes: Annotated[list[EntryForm], Field(max_length=1_000)] = []
    expires_in_s: Annotated[Finite, Field(gt=0, le=10 * 366 * 86_400)] | None = None
