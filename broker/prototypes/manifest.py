"""The manifest of a prototype: its program, its streams, and what it needs to run.  Pure.

`broker.prototypes.file` reads it from YAML, `json_schema` describes it to editors, and
docs/reference/manifest.md is made of its descriptions.
"""

import re
import shlex
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from broker import file_schema, streams
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.file_values import BYTES, ID, DurationNs, Id, UnitCode, quantity, reading
from broker.namespace import StreamAddress
from broker.prototypes.image import Image, PrototypePart
from broker.streams import MOST_ELEMENTS, MOST_SIGNALS, MOST_TEXT, Dtype, Signal
from broker.time_expressions import duration_text

MIB = 2**20
MEMORY_BYTES = (16 * MIB, 16 * 1024 * MIB)
DISK_BYTES = (1 * MIB, 10 * 1024 * MIB)
LOG_BYTES = (64 * 1024, 100 * MIB)
"""Least and most bytes that a prototype may ask for."""
CPU_CORES = (0.05, 16.0)
MOST_PIDS = 1_000
MOST_STREAMS = 100
MOST_VARIABLES = 100
MOST_VALUE = 32 * 1024
MOST_RESTARTS = 100
MOST_PURPOSE = 2_000
MOST_HEALTH_NS = 3_600 * NS_PER_S
RESERVED = "TESTBED_"
"""Begin of the names of variables that the testbed sets itself."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)


# --- values --------------------------------------------------------------------------------------


def checked_variable(text: str) -> str:
    """Return `text` if it may name a variable of the environment or a secret; raises Invalid."""
    if _VARIABLE.fullmatch(text) is None:
        raise Invalid(
            f"{text[:80]!r} names no variable",
            hint="use A-Z, a-z, 0-9 and '_', no digit first, 100 characters at most",
        )
    if text.upper().startswith(RESERVED):
        raise Invalid(
            f"{text} is a setting of the testbed, which it gives itself",
            hint=f"choose a name that does not begin with {RESERVED}",
        )
    return text


def checked_command(text: str) -> str:
    """Return `text` if it is a command line of words; raises Invalid."""
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise Invalid(f"{text[:80]!r} is no command line: {exc}", hint="close the quote") from exc
    if not words:
        raise Invalid("the command is empty", hint="such as command: python prototype.py")
    return text


def size_text(size: int) -> str:
    """The text of a size in bytes, in the greatest unit that divides it."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % int(BYTES[unit]) == 0:
            return f"{size // int(BYTES[unit])} {unit}"
    return f"{size} B"


def _size(bounds: tuple[int, int], example: str) -> BeforeValidator:
    """Make a validator of a size in bytes between two bounds."""

    def validate(value: Any) -> Any:
        size = round(quantity(value, BYTES, example))
        if not bounds[0] <= size <= bounds[1]:
            raise ValueError(f"it must be {size_text(bounds[0])} to {size_text(bounds[1])}")
        return size

    return BeforeValidator(validate)


def _size_schema(example: str) -> WithJsonSchema:
    pattern = rf"^[0-9.]+ ?({'|'.join(BYTES)})?$"
    of_text = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [of_text, {"type": "integer"}], "examples": [example]})


_as_size = PlainSerializer(size_text, return_type=str)
Memory = Annotated[int, _size(MEMORY_BYTES, "256 MiB"), _as_size, _size_schema("256 MiB")]
"""A size of memory, in bytes."""
Disk = Annotated[int, _size(DISK_BYTES, "64 MiB"), _as_size, _size_schema("64 MiB")]
"""A size of a disk, in bytes."""
LogSize = Annotated[int, _size(LOG_BYTES, "10 MiB"), _as_size, _size_schema("10 MiB")]
"""A size of a log, in bytes."""
InputAddress = Annotated[
    StreamAddress,
    reading(StreamAddress.parse, StreamAddress),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{ID}/{ID}/{ID}$",
            "description": "a stream: ORGANISATION/EQUIPMENT/STREAM",
            "examples": ["factory/pump-rig/rig"],
        }
    ),
]
"""The address of a stream."""
SignalName = Annotated[str, reading(streams.checked_signal), WithJsonSchema({"type": "string"})]
VariableName = Annotated[
    str,
    reading(checked_variable),
    WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE.pattern}$"}),
]


# --- outputs -------------------------------------------------------------------------------------


class OutputSignal(PrototypePart):
    """A signal of an output."""

    dtype: Dtype = Field(default=Dtype.FLOAT64, description="type of its values")
    unit: UnitCode = Field(
        default="1", description="unit, a UCUM code; `1` where it has none", max_length=MOST_TEXT
    )
    range: tuple[FiniteFloat, FiniteFloat] | None = Field(
        default=None, description="least and greatest value that is expected, in its unit"
    )
    size: Annotated[int, Field(ge=1, le=MOST_ELEMENTS)] | None = Field(
        default=None, description="number of elements, where each value is an array"
    )
    description: str = Field(default="", max_length=MOST_TEXT, description="what it says")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The type has this range and this size."""
        if self.range is not None:
            low, high = self.range
            if self.dtype not in {Dtype.FLOAT64, Dtype.INT64}:
                raise ValueError(f"a {self.dtype} has no range; leave it out")
            if low >= high:
                raise ValueError(
                    f"its range goes from {low:g} to {high:g}; write the lower number first"
                )
        if self.size is not None and self.dtype is Dtype.STRING:
            raise ValueError("arrays are float64, int64 or bool; name a signal for each text")
        return self

    def signal(self, name: str) -> Signal:
        """The signal as the program registers it."""
        low, high = self.range or (None, None)
        return Signal(
            name,
            self.dtype,
            self.unit,
            low=low,
            high=high,
            description=self.description,
            shape=() if self.size is None else (self.size,),
        )


class OutputSpec(PrototypePart):
    """A stream that the program publishes."""

    signals: dict[SignalName, OutputSignal] = Field(
        min_length=1, max_length=MOST_SIGNALS, description="its signals, by name"
    )
    description: str = Field(default="", max_length=MOST_TEXT, description="what it is for")


# --- how it runs ---------------------------------------------------------------------------------


class PrototypeResources(PrototypePart):
    """The most that a prototype may use of the machine that it runs on."""

    memory: Memory = Field(default=256 * MIB, description="memory, 16 MiB to 16 GiB")
    cpu: float = Field(
        default=0.5,
        ge=CPU_CORES[0],
        le=CPU_CORES[1],
        description="processor cores, 0.05 to 16; 0.5 is half of one",
    )
    pids: int = Field(
        default=64, ge=1, le=MOST_PIDS, description="processes and threads at once, 1 to 1000"
    )
    disk: Disk = Field(default=64 * MIB, description="files that it writes, 1 MiB to 10 GiB")
    log: LogSize = Field(default=10 * MIB, description="log that is kept, 64 KiB to 100 MiB")


class RestartWhen(StrEnum):
    """The ends of a program after which it is started again."""

    ON_FAILURE = "on-failure"
    """It ended with another exit code than 0, or was killed."""
    ALWAYS = "always"
    """It ended."""
    NEVER = "never"
    """None."""


class RestartPolicy(PrototypePart):
    """When a program that has ended is started again."""

    when: RestartWhen = Field(
        default=RestartWhen.ON_FAILURE, description="the ends after which it is started again"
    )
    most: int = Field(
        default=5,
        ge=0,
        le=MOST_RESTARTS,
        description="further starts, at most, before it is given up",
    )


def _bounded(value_ns: int) -> int:
    if value_ns > MOST_HEALTH_NS:
        raise ValueError(f"it must be {duration_text(MOST_HEALTH_NS)} at most")
    return value_ns


HealthDuration = Annotated[DurationNs, AfterValidator(_bounded)]
"""A duration above 0 and up to an hour, in ns."""


class HealthRule(PrototypePart):
    """When a prototype counts as healthy, judged by what the testbed sees of it."""

    starts_within_ns: HealthDuration = Field(
        default=30 * NS_PER_S,
        alias="starts_within",
        description="time from its start until it has connected, 1h at most",
    )
    silent_for_ns: HealthDuration | None = Field(
        default=None,
        alias="silent_for",
        description="time without a batch of an output after which it is unhealthy, 1h at most"
        " (default: none)",
    )


# --- the whole -----------------------------------------------------------------------------------


class PrototypeManifest(PrototypePart):
    """A prototype: a company's program in an image, and the streams that it reads and publishes."""

    name: Id = Field(alias="prototype", description="the prototype's name")
    description: str = Field(default="", max_length=MOST_PURPOSE, description="what it does")
    purpose: str = Field(
        default="",
        max_length=MOST_PURPOSE,
        description="what its inputs are needed for: the owners read it in the request for grants",
    )
    image: Image = Field(description="the image that it runs in")
    command: Annotated[str, reading(checked_command)] = Field(
        description="the command that starts it, run without a shell, in the image's work folder",
        max_length=MOST_PURPOSE,
    )
    inputs: dict[Id, InputAddress] = Field(
        default_factory=dict,
        max_length=MOST_STREAMS,
        description="name that the program knows -> the stream that it reads",
    )
    outputs: dict[Id, OutputSpec] = Field(
        default_factory=dict,
        max_length=MOST_STREAMS,
        description="name that the program knows -> the stream that it publishes",
    )
    resources: PrototypeResources = Field(
        default_factory=PrototypeResources, description="the most that it may use"
    )
    environment: dict[VariableName, Annotated[str, Field(max_length=MOST_VALUE)]] = Field(
        default_factory=dict,
        max_length=MOST_VARIABLES,
        description="variables of its environment; none that begins with TESTBED_, and no secret",
    )
    secrets: tuple[VariableName, ...] = Field(
        default=(),
        max_length=MOST_VARIABLES,
        description="names of the secrets that it needs; their values are never in the manifest",
    )
    health: HealthRule = Field(default_factory=HealthRule, description="when it counts as healthy")
    restart: RestartPolicy = Field(
        default_factory=RestartPolicy, description="when it is started again"
    )

    @model_validator(mode="after")
    def _takes_part(self) -> Self:
        if not self.inputs and not self.outputs:
            raise ValueError("it has neither inputs nor outputs")
        return self

    def signals(self, output: str) -> dict[str, Signal]:
        """The signals of an output, by name."""
        return {name: form.signal(name) for name, form in self.outputs[output].signals.items()}


def json_schema() -> dict[str, Any]:
    """The schema of a manifest, JSON Schema draft 2020-12, as a document of plain values."""
    return file_schema.of_model(
        PrototypeManifest, "Manifest of a prototype on the connected testbed", _default
    )


def _default(node: dict[str, Any]) -> Any:
    """The default of a field as a file has it: a duration and a size are texts."""
    default = node["default"]
    if not isinstance(default, int) or node.get("type") in {"integer", "number", "boolean"}:
        return default
    return duration_text(default) if "pattern" in node else size_text(default)
