"""Entries of a scenario's timeline, as its file has them: faults, draws of faults, and events."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from broker.file_values import DurationNs, Id, UnitCode
from testbed_scenarios.quantities import (
    DurationSpan,
    Factor,
    MomentNs,
    Quantity,
    Share,
    SignalReference,
    SignedDurationNs,
    Target,
)
from testbed_scenarios.signal_faults import SensorFaultKind


class ScenarioPart(BaseModel):
    """Base of every part of a scenario: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_alias=True)


class LinkFaultKind(StrEnum):
    """Kind of a fault of the link between an equipment and the testbed."""

    DELAY = "delay"
    """Samples arrive later by `by`."""
    CUT = "cut"
    """Nothing arrives while it lasts; all of it arrives afterwards, in order."""
    CLOCK_SKEW = "clock-skew"
    """The equipment's clock is ahead by `by`, or behind if that is below 0."""


SERVER_RESTART = "server-restart"
NEEDED: Mapping[str, tuple[str, str]] = {
    SensorFaultKind.DRIFT: ("by", "the offset at its end, in the signal's unit, such as by: 0.5"),
    SensorFaultKind.NOISE: ("by", "the standard deviation, in the signal's unit, such as by: 0.1"),
    SensorFaultKind.SPIKE: ("by", "the height, in the signal's unit, such as by: 2"),
    LinkFaultKind.DELAY: ("by", "how much later, such as by: 5s"),
    LinkFaultKind.CLOCK_SKEW: ("by", "how far the clock is ahead, such as by: 2s or by: -2s"),
}
"""The field that a kind of fault cannot do without, and words about it."""
KNOWN: Mapping[str, frozenset[str]] = {
    SensorFaultKind.DROPOUT: frozenset({"share"}),
    SensorFaultKind.STUCK: frozenset(),
    SensorFaultKind.DRIFT: frozenset({"by"}),
    SensorFaultKind.NOISE: frozenset({"by"}),
    SensorFaultKind.SPIKE: frozenset({"by", "share"}),
    SensorFaultKind.WRONG_UNIT: frozenset({"unit", "factor"}),
    SensorFaultKind.BAD_QUALITY: frozenset({"quality"}),
    LinkFaultKind.DELAY: frozenset({"by"}),
    LinkFaultKind.CUT: frozenset(),
    LinkFaultKind.CLOCK_SKEW: frozenset({"by"}),
}
"""Fields of `SignalFault` and `LinkFault` that have an effect on a kind of fault."""
DRAWN = frozenset({"by", "share", "unit", "factor"})
"""Those that a draw has too."""
OF_NUMBERS = frozenset(
    {
        *(SensorFaultKind.DRIFT, SensorFaultKind.NOISE),
        *(SensorFaultKind.SPIKE, SensorFaultKind.WRONG_UNIT),
    }
)
"""Kinds of faults that only a signal of numbers can have."""
SPIKE_SHARE = 0.05
"""Share of the samples of a spike where the scenario does not say it."""


class FaultQuality(StrEnum):
    """Quality of the samples under a fault."""

    UNCERTAIN = "uncertain"
    BAD = "bad"


def one_of(names: Iterable[str]) -> str:
    """Names as a choice: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


class Interval(ScenarioPart):
    """Base of the entries that last: from a moment to a later one."""

    from_ns: MomentNs = Field(alias="from", description="when it begins, such as 60s")
    to_ns: MomentNs = Field(alias="to", description="when it is over, such as 2min")

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.from_ns >= self.to_ns:
            raise ValueError("`to` must be later than `from`")
        return self


class ModelFault(Interval):
    """A fault of the machine itself, which its model acts out; it is labelled in the truth."""

    fault: Id = Field(description="a fault of the model")
    on: Id = Field(description="the equipment")
    severity: float = Field(default=1.0, gt=0, le=1, description="0 to 1, where 1 is the worst")


def _checked_options(part: Any, kind: SensorFaultKind | LinkFaultKind) -> None:
    """Refuse an option that has no effect on a kind of fault, and the lack of one it needs."""
    options = part.model_fields_set - {"fault", "on", "from_ns", "to_ns"}
    if foreign := sorted(options - KNOWN[kind]):
        raise ValueError(f"a {kind} has no `{foreign[0]}`; leave it out")
    _check_needed(part, kind)


def _check_needed(part: Any, kind: str) -> None:
    """Refuse a kind of fault without the option that it needs."""
    if kind in NEEDED and getattr(part, NEEDED[kind][0]) is None:
        field, words = NEEDED[kind]
        raise ValueError(f"a {kind} needs `{field}`: {words}")
    if kind == SensorFaultKind.WRONG_UNIT and (part.unit is None) == (part.factor is None):
        raise ValueError("a wrong-unit needs either `unit`, such as unit: mbar, or `factor`")


class SignalFault(Interval):
    """A fault of a sensor: the machine is well, and its signal is wrong."""

    fault: SensorFaultKind = Field(description="what is wrong with the signal")
    on: SignalReference = Field(description="the signal, as EQUIPMENT/SIGNAL")
    by: Quantity | None = Field(
        default=None, description="of drift, noise and spike: how far, in the signal's unit"
    )
    share: Share | None = Field(
        default=None,
        description="of dropout and spike: share of the samples (default: all of a dropout, 5 % of"
        " a spike)",
    )
    unit: UnitCode | None = Field(
        default=None, description="of wrong-unit: the unit that the sensor was set to, such as mbar"
    )
    factor: Factor | None = Field(
        default=None, description="of wrong-unit, instead of `unit`: what values are multiplied by"
    )
    quality: FaultQuality = Field(default=FaultQuality.BAD, description="of bad-quality")

    @model_validator(mode="after")
    def _has_its_options(self) -> Self:
        _checked_options(self, self.fault)
        return self

    @property
    def faulty_share(self) -> float:
        """The share of the samples that have the fault, above 0, to 1."""
        return self.share or (SPIKE_SHARE if self.fault is SensorFaultKind.SPIKE else 1.0)


class LinkFault(Interval):
    """A fault of the link between an equipment and the testbed."""

    fault: LinkFaultKind = Field(description="what is wrong with the link")
    on: Id = Field(description="the equipment")
    by: SignedDurationNs | None = Field(
        default=None, description="of delay and clock-skew: by how much, such as 5s"
    )

    @model_validator(mode="after")
    def _has_its_options(self) -> Self:
        _checked_options(self, self.fault)
        if self.fault is LinkFaultKind.DELAY and self.by is not None and self.by <= 0:
            raise ValueError("a delay must be longer than 0")
        return self


class ServerRestart(ScenarioPart):
    """The testbed's server is ended and started again."""

    fault: Literal["server-restart"] = Field(description="server-restart")
    at_ns: MomentNs = Field(alias="at", description="when it is ended, such as 100s")


class FaultDraw(ScenarioPart):
    """Faults that the seed decides: one in each `every`, of a kind and at a moment at random."""

    draw: tuple[Id, ...] = Field(
        min_length=1,
        max_length=50,
        description="faults of the model, or of the sensor if `on` is a signal: each time one",
    )
    on: Target = Field(description="the equipment, or a signal of it as EQUIPMENT/SIGNAL")
    every_ns: DurationNs = Field(alias="every", description="time in which one fault comes")
    lasting: DurationSpan = Field(description="how long each lasts, such as 20s..60s")
    from_ns: MomentNs = Field(default=0, alias="from", description="when the first may begin")
    to_ns: MomentNs | None = Field(
        default=None, alias="to", description="when the last is over (default: the end)"
    )
    severity: float = Field(default=1.0, gt=0, le=1, description="of faults of the model, 0 to 1")
    by: Quantity | None = Field(
        default=None, description="of drift, noise and spike: how far, in the signal's unit"
    )
    share: Share | None = Field(default=None, description="of dropout and spike")
    unit: UnitCode | None = Field(default=None, description="of wrong-unit")
    factor: Factor | None = Field(default=None, description="of wrong-unit, instead of `unit`")

    @model_validator(mode="after")
    def _fits_its_time(self) -> Self:
        if self.to_ns is not None and self.from_ns >= self.to_ns:
            raise ValueError("`to` must be later than `from`")
        if self.lasting.high_ns > self.every_ns:
            raise ValueError(f"faults of {self.lasting} do not fit into `every`; make it longer")
        return self

    @model_validator(mode="after")
    def _has_its_options(self) -> Self:
        is_sensor = "/" in self.on
        for name in self.draw:
            if is_sensor and name not in set(SensorFaultKind):
                raise ValueError(
                    f"{name!r} is no fault of a signal; write {one_of(SensorFaultKind)}"
                )
            if is_sensor:
                _check_needed(self, name)
        for name in () if is_sensor else self.draw:
            if name in {LinkFaultKind.DELAY, LinkFaultKind.CLOCK_SKEW}:
                raise ValueError(f"a {name} cannot be drawn; write it as an entry of its own")
        useful = {field for name in self.draw for field in KNOWN.get(name, ()) if is_sensor}
        given = self.model_fields_set & DRAWN
        if foreign := sorted(given - useful):
            raise ValueError(f"none of these faults has a `{foreign[0]}`; leave it out")
        return self

    def fault(self, kind: str, from_ns: int, to_ns: int) -> ModelFault | SignalFault | LinkFault:
        """The fault that a draw has come to, as if the file had it."""
        span: dict[str, Any] = {"from": from_ns, "to": to_ns, "on": self.on}
        if "/" in self.on:
            useful = KNOWN[kind] & DRAWN
            options: dict[str, Any] = {name: getattr(self, name) for name in useful}
            return SignalFault.model_construct(fault=SensorFaultKind(kind), **options, **span)
        if kind in set(LinkFaultKind):
            return LinkFault.model_construct(fault=LinkFaultKind(kind), **span)
        return ModelFault.model_construct(fault=kind, severity=self.severity, **span)


class InputStep(ScenarioPart):
    """An event: from a moment on, an input of a model or an FMU has another value."""

    set: SignalReference = Field(description="the input, as EQUIPMENT/INPUT")
    at_ns: MomentNs = Field(alias="at", description="when, such as 60s")
    value: Quantity = Field(description="the new value, in the input's unit")


def _kind_of_entry(value: Any) -> str:
    """The tag of the entry that a value is meant to be: by its fields, never by failing ones."""
    if isinstance(value, ScenarioPart):
        return f"<{type(value).__name__}>"
    fields = value if isinstance(value, dict) else {}
    if "draw" in fields or "set" in fields:
        return "<FaultDraw>" if "draw" in fields else "<InputStep>"
    fault, on = str(fields.get("fault")), str(fields.get("on"))
    if fault == SERVER_RESTART:
        return "<ServerRestart>"
    if fault in set(LinkFaultKind):
        return "<LinkFault>"
    if fault in set(SensorFaultKind) or "/" in on:
        return "<SignalFault>"
    return "<ModelFault>"


TimelineEntry = Annotated[
    Annotated[ModelFault, Tag("<ModelFault>")]
    | Annotated[SignalFault, Tag("<SignalFault>")]
    | Annotated[LinkFault, Tag("<LinkFault>")]
    | Annotated[ServerRestart, Tag("<ServerRestart>")]
    | Annotated[FaultDraw, Tag("<FaultDraw>")]
    | Annotated[InputStep, Tag("<InputStep>")],
    Discriminator(_kind_of_entry),
]
"""A fault, a draw of faults or an event; its fields say which."""
