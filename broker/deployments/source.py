"""The order of what plays the inputs of a deployment that is simulated or recorded.  Pure.

Whoever deploys gives it, the registry keeps it, and `python -m testbed.deployment_source` obeys it:
a program like any other, whose outputs are the inputs of the deployment.  It reads the order as
JSON from standard input, and everything else from its environment: TESTBED_API, TESTBED_BROKER,
TESTBED_CREDENTIAL or TESTBED_CREDENTIAL_FILE, TESTBED_SPACE, and TESTBED_OUTPUTS with the name and
the address of each input.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
)

from broker import pydantic_checks
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid
from broker.file_values import Id
from broker.prototypes.manifest import MOST_STREAMS, InputAddress

MOST_SETTINGS, MOST_FAULTS = 100, 1_000
MOST_SEED = 2**53 - 1
MOST_SPEED = 100.0
"""Source seconds in a second: a greater speed would be a load, and no machine."""
LEAST_SPEED = 0.01
MOST_FAULT_S = 366 * 86_400.0
LEAST_PERIOD_S, MOST_PERIOD_S = 0.001, 86_400.0

Speed = Annotated[float, Field(ge=LEAST_SPEED, le=MOST_SPEED, examples=[1.0])]


class SourcePart(BaseModel):
    """Base of the parts of an order: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedFault(SourcePart):
    """A fault of a simulated machine, in seconds since it began to play."""

    kind: Id
    from_s: float = Field(ge=0, le=MOST_FAULT_S)
    to_s: float = Field(gt=0, le=MOST_FAULT_S)
    severity: float = Field(default=1.0, gt=0, le=1)


class SimulatedInput(SourcePart):
    """The machine that plays one input.

    simulator: a model of the catalogue, such as pump-rig.  parameters, settings: its parameters and
    its inputs that differ from their defaults.  period_s: time between two rows, None for the
    model's own.  fault_every_s: a fault comes about so often, None for none but `faults`.  Inputs
    of equal orders are the same machine, sample for sample.
    """

    simulator: Id
    parameters: dict[str, FiniteFloat] = Field(default_factory=dict, max_length=MOST_SETTINGS)
    settings: dict[str, FiniteFloat] = Field(default_factory=dict, max_length=MOST_SETTINGS)
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    period_s: float | None = Field(default=None, ge=LEAST_PERIOD_S, le=MOST_PERIOD_S)
    faults: tuple[PlannedFault, ...] = Field(default=(), max_length=MOST_FAULTS)
    fault_every_s: float | None = Field(default=None, gt=0, le=MOST_FAULT_S)


class SimulatedOrder(SourcePart):
    """Simulated machines, one for each input.  speed: machine seconds in a second."""

    kind: Literal["simulated"] = "simulated"
    inputs: dict[Id, SimulatedInput] = Field(max_length=MOST_STREAMS)
    speed: Speed = 1.0


class RecordedOrder(SourcePart):
    """A recording on the server, with its time stamps moved to now.

    streams: input -> the stream of the recording that plays it.  speed: recorded seconds in a
    second.  repeat: begin again at its end; else its inputs are silent from then on.
    """

    kind: Literal["recorded"] = "recorded"
    recording: int = Field(ge=1, lt=2**53)
    streams: dict[Id, InputAddress] = Field(max_length=MOST_STREAMS)
    speed: Speed = 1.0
    repeat: bool = False


EitherOrder = Annotated[SimulatedOrder | RecordedOrder, Discriminator("kind")]
"""An order of either kind; the field `kind` says which."""


def from_document(fields: Any) -> SimulatedOrder | RecordedOrder:
    """Read an order from plain values; raises Invalid with what is wrong."""
    try:
        order: SimulatedOrder | RecordedOrder = TypeAdapter(EitherOrder).validate_python(fields)
    except ValidationError as exc:
        raise Invalid(
            f"the source is not understood: {pydantic_checks.first_sentence(exc)}",
            hint="kind: simulated with inputs, or kind: recorded with a recording and streams",
        ) from exc
    return order


def check(
    order: SimulatedOrder | RecordedOrder | None, stage: DeploymentStage, inputs: Iterable[str]
) -> None:
    """Raise Invalid unless an order plays each input of a deployment, and is of its stage."""
    names = set(inputs)
    if stage is DeploymentStage.LIVE:
        if order is not None:
            raise Invalid(
                "a live deployment reads the equipment itself", hint="leave the source out"
            )
        return
    if order is None:
        if not names:
            return
        raise Invalid(
            f"nothing plays its inputs: {', '.join(sorted(names))}",
            hint="name a simulator for each of them, or a recording",
        )
    if DeploymentStage(order.kind) is not stage:
        raise Invalid(f"a {order.kind} source does not play a {stage} deployment")
    played = set(order.inputs if isinstance(order, SimulatedOrder) else order.streams)
    if missing := sorted(names - played):
        raise Invalid(f"nothing plays the input {missing[0]!r}", hint="name what plays it")
    if unknown := sorted(played - names):
        raise Invalid(
            f"its manifest has no input {unknown[0]!r}",
            hint=f"it has {', '.join(sorted(names)) or 'none'}",
        )
