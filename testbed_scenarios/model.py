"""The model of a scenario file: equipment, timeline, prototypes under test, expectations, sweep.

`testbed_scenarios.file` reads it from YAML, `testbed_scenarios.schema` describes it to editors, and
docs/reference/scenario.md is made of its descriptions.
"""

import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from broker import clock, field_choice
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.file_values import DurationNs, Id
from testbed_scenarios.expectations.model import Expectation
from testbed_scenarios.quantities import (
    RANGE_SIGN,
    InputSource,
    InstantNs,
    Quantity,
    StreamReference,
)
from testbed_scenarios.timeline_model import ScenarioPart, TimelineEntry

MOST_SEED = 2**53 - 1
"""Greatest integer that every reader of JSON keeps exactly."""
MOST_SEEDS = 10_000
MOST_EQUIPMENT = 100
MOST_ENTRIES = 10_000
MOST_DESCRIPTION = 2_000
DEFAULT_START_NS = clock.ns_of("2026-01-01T00:00:00Z")

FileName = Annotated[str, Field(min_length=1, max_length=1_000)]


# --- equipment -----------------------------------------------------------------------------------


class ModelEquipment(ScenarioPart):
    """A machine that a model of the testbed simulates."""

    model: Id = Field(
        description="the model, such as pump-rig; `testbed simulate --help` lists them"
    )
    period_ns: DurationNs | None = Field(
        default=None,
        alias="period",
        description="time between two rows (default: the model's usual one)",
    )
    parameters: dict[str, Quantity] = Field(
        default_factory=dict, description="parameters of the model that differ from their defaults"
    )
    inputs: dict[str, InputSource] = Field(
        default_factory=dict,
        description="what feeds each input: a number, or a signal, whose newest value acts one"
        " quantum later",
    )


class FmuEquipment(ScenarioPart):
    """A machine that an FMU for co-simulation simulates, in a process of its own."""

    fmu: FileName = Field(description="the FMU's file, relative to the scenario file")
    period_ns: DurationNs | None = Field(
        default=None,
        alias="period",
        description="time between two rows (default: the FMU's own step, or 100ms)",
    )
    parameters: dict[str, Quantity] = Field(
        default_factory=dict, description="start values of the FMU's parameters"
    )
    inputs: dict[str, InputSource] = Field(
        default_factory=dict,
        description="what feeds each input: a number, or a signal, whose newest value acts one"
        " quantum later",
    )


class Replayed(ScenarioPart):
    """Base of the equipment that is played back: how its time stamps become the scenario's."""

    begin_ns: InstantNs | None = Field(
        default=None,
        alias="begin",
        description="the recording's instant at the scenario's start (default: that of its first"
        " row, of whichever stream); the same for several keeps them in step",
    )
    speed: float = Field(
        default=1.0, gt=0, le=1e6, description="recorded seconds in a second of the scenario"
    )
    loop: bool = Field(default=False, description="begin again at its end")


class CsvEquipment(Replayed):
    """A machine that a CSV file plays back."""

    csv: FileName = Field(description="the CSV file, relative to the scenario file")


class RecordingEquipment(Replayed):
    """A machine that a recording plays back."""

    recording: FileName = Field(description="the recording's folder, relative to the scenario file")
    stream: str | None = Field(
        default=None,
        description="the stream in the recording, as ORGANISATION/EQUIPMENT/STREAM; may be left out"
        " where it holds one",
    )


_SOURCES = {
    "model": "<ModelEquipment>",
    "fmu": "<FmuEquipment>",
    "csv": "<CsvEquipment>",
    "recording": "<RecordingEquipment>",
}


Equipment = Annotated[
    Annotated[ModelEquipment, Tag("<ModelEquipment>")]
    | Annotated[FmuEquipment, Tag("<FmuEquipment>")]
    | Annotated[CsvEquipment, Tag("<CsvEquipment>")]
    | Annotated[RecordingEquipment, Tag("<RecordingEquipment>")],
    Discriminator(lambda value: field_choice.chosen(value, _SOURCES)),
    field_choice.has_one(_SOURCES, "machine"),
]
"""A machine: a model, an FMU, a CSV file or a recording; the field of that name says which."""


# --- prototypes ----------------------------------------------------------------------------------


class PrototypeUnderTest(ScenarioPart):
    """Base of the prototypes: the streams that its program knows by name."""

    inputs: dict[Id, StreamReference] = Field(
        default_factory=dict, description="name of each input -> the stream that it reads"
    )
    outputs: tuple[Id, ...] = Field(
        default=(), max_length=100, description="names of the streams that it publishes"
    )
    answers_within_ns: DurationNs = Field(
        default=10 * NS_PER_S,
        alias="answers_within",
        description="real time that it may need for one quantum (default: 10s)",
    )

    @model_validator(mode="after")
    def _takes_part(self) -> Self:
        if not self.inputs and not self.outputs:
            raise ValueError("it has neither inputs nor outputs, such as `inputs: {rig: rig}`")
        if twice := sorted({name for name in self.outputs if self.outputs.count(name) > 1}):
            raise ValueError(f"the output {twice[0]!r} stands twice")
        return self


class CommandPrototype(PrototypeUnderTest):
    """A prototype that a command line starts."""

    command: str = Field(
        min_length=1, description="the command, run without a shell, in the scenario file's folder"
    )


class PythonPrototype(PrototypeUnderTest):
    """A prototype in a Python file, run by the testbed's own Python."""

    python: FileName = Field(description="the Python file, relative to the scenario file")


FUNCTION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _checked_function(text: str) -> str:
    """Return `text` if it names a function of a module."""
    if re.fullmatch(FUNCTION_PATTERN, text) is None:
        raise ValueError("write package.module:name, such as my_package.detector:main")
    return text


FunctionName = Annotated[
    str,
    AfterValidator(_checked_function),
    WithJsonSchema({"type": "string", "pattern": FUNCTION_PATTERN}),
]


class FunctionPrototype(PrototypeUnderTest):
    """A prototype that is a Python function, run in a process of its own."""

    function: FunctionName = Field(
        description="the function, as package.module:function",
        examples=["my_package.detector:main"],
    )


_PROGRAMS = {
    "command": "<CommandPrototype>",
    "python": "<PythonPrototype>",
    "function": "<FunctionPrototype>",
}

Prototype = Annotated[
    Annotated[CommandPrototype, Tag("<CommandPrototype>")]
    | Annotated[PythonPrototype, Tag("<PythonPrototype>")]
    | Annotated[FunctionPrototype, Tag("<FunctionPrototype>")],
    Discriminator(lambda value: field_choice.chosen(value, _PROGRAMS)),
    field_choice.has_one(_PROGRAMS, "program"),
]
"""A prototype under test: a command, a Python file or a function."""


# --- the whole -----------------------------------------------------------------------------------


def parsed_seeds(value: Any) -> Any:
    """The seeds of `1..10` or `3`; a list stays as it is.  Raises Invalid."""
    if not isinstance(value, str):
        return value
    low, sign, high = (part.strip() for part in value.partition(RANGE_SIGN))
    if not (low.isdecimal() and low.isascii() and (not sign or high.isdecimal())):
        raise Invalid(f"{value[:40]!r} are no seeds", hint="write 1..10, or a list such as [1, 5]")
    first, last = int(low), int(high or low)
    if last < first:
        raise Invalid(f"the seeds {value} end before they begin", hint="write the lower one first")
    if last - first >= MOST_SEEDS:
        raise Invalid(
            f"{value} are {last - first + 1:,} seeds", hint=f"{MOST_SEEDS:,} are the most"
        )
    return tuple(range(first, last + 1))


def _seeds(value: Any) -> Any:
    try:
        return parsed_seeds(value)
    except Invalid as exc:
        raise ValueError(str(exc)) from exc


Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Seeds = Annotated[
    tuple[Seed, ...],
    Field(max_length=MOST_SEEDS),
    BeforeValidator(_seeds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\.\d+)?$"},
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}},
            ],
            "examples": ["1..10", [1, 5, 9]],
        }
    ),
]
SweepValue = str | int | float | bool | dict[str, Any] | list[Any]


class Scenario(ScenarioPart):
    """A test of prototypes on machines: what is there, what happens, and what must come of it."""

    name: Id = Field(alias="scenario", description="the scenario's name")
    description: str = Field(
        default="", max_length=MOST_DESCRIPTION, description="what it tests, for people"
    )
    duration_ns: DurationNs = Field(
        alias="duration", description="how long it is, in virtual time, such as 10min"
    )
    quantum_ns: DurationNs = Field(
        default=NS_PER_S,
        alias="quantum",
        description="step of the virtual time; within it nobody waits for anybody (default: 1s)",
    )
    start_ns: InstantNs = Field(
        default=DEFAULT_START_NS,
        alias="start",
        description="the instant at which virtual time begins (default: 2026-01-01T00:00:00Z)",
    )
    seed: Seed = Field(
        default=0, description="decides everything random; `--seed` overrides it (default: 0)"
    )
    equipment: dict[Id, Equipment] = Field(
        min_length=1, max_length=MOST_EQUIPMENT, description="the machines, by name"
    )
    timeline: tuple[TimelineEntry, ...] = Field(
        default=(), max_length=MOST_ENTRIES, description="faults and events"
    )
    prototypes: dict[Id, Prototype] = Field(
        default_factory=dict, max_length=MOST_EQUIPMENT, description="programs under test, by name"
    )
    expectations: tuple[Expectation, ...] = Field(
        default=(), max_length=MOST_ENTRIES, description="what must hold for the run to pass"
    )
    sweep: dict[str, list[SweepValue]] = Field(
        default_factory=dict,
        description="dotted path of a field -> the values it takes, each in a run of its own",
        examples=[{"equipment.rig.parameters.shut_opening": [0.6, 0.7, 0.8]}],
    )
    seeds: Seeds = Field(
        default=(), description="seeds of the runs, such as 1..10 (default: `seed` alone)"
    )

    def to_document(self) -> dict[str, Any]:
        """The fields that were set, as in the file: reading them gives an equal scenario."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def from_document(cls, fields: dict[str, Any]) -> Self:
        """Make a scenario of the fields of a file; raises pydantic's ValidationError."""
        return cls.model_validate(fields)
