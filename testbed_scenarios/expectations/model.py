"""The expectations of a scenario file, one model for each kind.

A span of an expectation is counted from the beginning of the run, or, with `after`, from the
beginning of each occurrence of a fault or an event: the expectation must then be fulfilled after
each of them.  Spans include their beginning and not their end; a span of `within` includes both.

Fields are named by the words of the file (`from`, `to`, `within`); times are held in ns.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from broker import field_choice
from broker.file_values import DurationNs
from testbed_scenarios.expectations.conditions import (
    Condition,
    DurationCondition,
    EnergyCondition,
    MemoryCondition,
    MultipleCondition,
    NumberCondition,
    RateCondition,
    ShareCondition,
    SignalCondition,
)
from testbed_scenarios.expectations.quantities import Number, Share
from testbed_scenarios.quantities import MomentNs, SignalReference, StreamReference

AnyCondition = Condition[float] | Condition[int]
UnknownTime = Literal["allowed", "fails"]
_SIGNAL = "The signal: `equipment/signal`, or `prototype/output/signal`"


class Occurrences(BaseModel):
    """The occurrences that an expectation is about: each of a fault, or each of an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str | None = Field(None, description="Kind of fault, such as `valve`")
    event: str | None = Field(None, description="Kind of event, such as `server-restart`")
    on: str | None = Field(
        None, description="The equipment that has it; every equipment if it is left out"
    )
    moment: Literal["begin", "end"] = Field(
        "begin", description="Count from the beginning of the fault, or from its end"
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.fault is None) == (self.event is None):
            raise ValueError("`after` names a fault or an event, such as {fault: valve}")
        if self.event is not None and self.moment == "end":
            raise ValueError("an event has no end; name a fault, or leave `moment` out")
        return self

    @property
    def kind(self) -> str:
        """The kind of fault or event."""
        return self.fault or self.event or ""


class AnyExpectation(BaseModel):
    """The fields that every expectation has."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    word: ClassVar[str]
    """The field that tells this kind from all others."""

    name: str = Field("", description="The expectation in your words, for the verdict")
    from_ns: MomentNs = Field(
        0, alias="from", description="Beginning of the span: from the run's, or `after`'s, start"
    )
    to_ns: MomentNs | None = Field(
        None, alias="to", description="End of the span, counted likewise; the run's if left out"
    )

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.to_ns is not None and self.to_ns <= self.from_ns:
            raise ValueError("the span ends before it begins: `to` must be later than `from`")
        return self

    @property
    def subject(self) -> str:
        """The signal, stream or prototype that it is about."""
        raise NotImplementedError


class RepeatedExpectation(AnyExpectation):
    """The fields of an expectation that may be about each occurrence of a fault or event."""

    after: Occurrences | None = Field(
        None, description="Expect it after each occurrence of a fault or an event"
    )


class SignalExpectation(RepeatedExpectation):
    """The fields of an expectation on the values of a signal."""

    signal: SignalReference = Field(description=_SIGNAL)
    unknown: UnknownTime = Field(
        "allowed",
        description="Time without a known value (before the first sample, in a gap, of bad"
        " quality): `allowed` is told and does not fail, `fails` does",
    )

    @property
    def subject(self) -> str:
        """The signal."""
        return self.signal


class AlwaysExpectation(SignalExpectation):
    """Every value in the span fulfils a condition."""

    word = "always"
    always: SignalCondition = Field(description="The condition that every value fulfils")


class NeverExpectation(SignalExpectation):
    """No value in the span fulfils a condition."""

    word = "never"
    never: SignalCondition = Field(description="The condition that no value fulfils")


class EventuallyExpectation(SignalExpectation):
    """Some value in the span fulfils a condition."""

    word = "eventually"
    eventually: SignalCondition = Field(description="The condition that some value fulfils")
    within_ns: DurationNs | None = Field(
        None, alias="within", description="Length of the span, in the place of `to`"
    )

    @model_validator(mode="after")
    def _check_within(self) -> Self:
        if self.within_ns is not None and self.to_ns is not None:
            raise ValueError("`within` and `to` both end the span; leave `to` out")
        return self


class Settling(BaseModel):
    """A band that a signal enters within a time, and does not leave any more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Number = Field(description="Middle of the band, in the unit of the signal")
    band: Annotated[Number, Field(gt=0)] = Field(
        description="Greatest distance from the middle, in the unit of the signal"
    )
    within_ns: DurationNs = Field(alias="within", description="Time until it has settled at latest")


class SettlesExpectation(SignalExpectation):
    """A signal enters a band within a time and stays in it.

    It stays until the end of the span, which is `to`, the next occurrence of what `after` names, or
    the end of the run, whichever is first.
    """

    word = "settles"
    settles: Settling = Field(description="The band, and the time until the signal is in it")


class SampleExpectation(RepeatedExpectation):
    """The fields of an expectation on how many samples there are.

    Of a signal: its samples with a value.  Of a stream: the distinct time stamps at which any of
    its signals has a value.
    """

    signal: SignalReference | None = Field(None, description=_SIGNAL)
    stream: StreamReference | None = Field(
        None, description="The stream: `equipment`, or `prototype/output`"
    )

    @model_validator(mode="after")
    def _check_subject(self) -> Self:
        if (self.signal is None) == (self.stream is None):
            raise ValueError("it is about a signal or about a stream: write `signal` or `stream`")
        return self

    @property
    def subject(self) -> str:
        """The signal or stream."""
        return self.signal or self.stream or ""


class CountExpectation(SampleExpectation):
    """The number of samples in the span fulfils a condition."""

    word = "count"
    count: NumberCondition = Field(description="The condition on the number of samples")


class RateExpectation(SampleExpectation):
    """The number of samples divided by the length of the span fulfils a condition."""

    word = "rate"
    rate: RateCondition = Field(description="The condition on the rate, such as {at_least: 0.9 /s}")
    over_ns: DurationNs | None = Field(
        None,
        alias="over",
        description="Length of a window, such as 10s: the rate in each window inside the span"
        " fulfils the condition; without it, the rate over the whole span does",
    )


class DetectionExpectation(AnyExpectation):
    """The alarms of a prototype fit the faults that an equipment had.

    testbed_scenarios.detection defines the scores.
    """

    word = "detection"
    detection: SignalReference = Field(
        description="The signal that is true, or not 0, while it alarms"
    )
    truth: str = Field(description="The equipment whose faults are to be detected")
    faults: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Kinds of fault to be detected, also of its sensors, such as [valve, stuck];"
        " all of the machine itself if it is left out",
    )
    by: Literal["point", "event"] = Field(
        "point", description="Score each row of the equipment, or each fault and alarm as a whole"
    )
    precision: ShareCondition | None = Field(None, description="Share of alarms that are right")
    recall: ShareCondition | None = Field(None, description="Share of what is faulty that it found")
    f1: ShareCondition | None = Field(
        None, description="Harmonic mean of precision and recall, 0 to 1"
    )
    false_alarm_rate: ShareCondition | None = Field(
        None, description="Share of the rows without a fault with an alarm; only by point"
    )
    false_alarms: RateCondition | None = Field(
        None, description="False alarms per time without a fault, such as 2 /h; only by event"
    )
    missed_alarm_rate: ShareCondition | None = Field(
        None, description="Share of what is faulty that it missed"
    )
    delay: DurationCondition | None = Field(
        None, description="Longest time from a fault's beginning to the alarm, of those it found"
    )

    @model_validator(mode="after")
    def _check_scores(self) -> Self:
        if not self.conditions:
            raise ValueError("it expects no score; add one such as {f1: {at_least: 0.8}}")
        if self.by == "event" and self.false_alarm_rate is not None:
            raise ValueError(
                "without a fault there are no events to count; write"
                " `false_alarms: {at_most: 2 /h}`, or `by: point`"
            )
        if self.by == "point" and self.false_alarms is not None:
            raise ValueError(
                "alarms are counted by event; write `false_alarm_rate: {at_most: 5 %}`, or"
                " `by: event`"
            )
        return self

    @property
    def subject(self) -> str:
        """The signal of the alarms."""
        return self.detection

    @property
    def conditions(self) -> Mapping[str, AnyCondition]:
        """The conditions by the names of their scores."""
        return _conditions(self, SCORES)


class ControlExpectation(RepeatedExpectation):
    """A signal under control fulfils conditions of control quality.

    testbed_scenarios.control_quality defines the measures.
    """

    word = "control"
    control: SignalReference = Field(
        description="The controlled signal; for an energy, the power; for a cycle time, the signal"
        " that rises (from false or 0) once a cycle"
    )
    set_point: Number | None = Field(None, description="Value that the signal is controlled to")
    band: Annotated[Share, Field(gt=0, lt=1)] = Field(
        0.02, description="Half of the width of the band in which it has settled, of the step"
    )
    overshoot: MultipleCondition | None = Field(
        None, description="Greatest distance beyond the set-point, as a share of the step"
    )
    settling_time: DurationCondition | None = Field(
        None, description="Time until the signal is in the band and stays in it"
    )
    energy: EnergyCondition | None = Field(
        None, description="Integral of a power, such as {at_most: 1.5 kW.h}"
    )
    cycle_time: DurationCondition | None = Field(
        None, description="Time from a rise to the next one, each of them"
    )

    @model_validator(mode="after")
    def _check_measures(self) -> Self:
        if not self.conditions:
            raise ValueError(
                "it expects nothing; add overshoot, settling_time, energy or cycle_time"
            )
        needs = self.overshoot is not None or self.settling_time is not None
        if needs and self.set_point is None:
            raise ValueError(
                "overshoot and settling_time are about a `set_point`, which is missing"
            )
        return self

    @property
    def subject(self) -> str:
        """The controlled signal."""
        return self.control

    @property
    def conditions(self) -> Mapping[str, AnyCondition]:
        """The conditions by the names of their measures."""
        return _conditions(self, MEASURES)


class ResourceExpectation(AnyExpectation):
    """A prototype needs no more than so much of the machine."""

    word = "resources"
    resources: str = Field(description="The prototype")
    cpu: MultipleCondition | None = Field(
        None, description="Mean share of one processor core, such as {at_most: 50 %}"
    )
    memory: MemoryCondition | None = Field(
        None, description="Greatest memory, such as {at_most: 300 MB}"
    )
    lag: DurationCondition | None = Field(
        None, description="Longest time that an answer takes, such as {at_most: 1s}"
    )

    @model_validator(mode="after")
    def _check_resources(self) -> Self:
        if not self.conditions:
            raise ValueError("it expects nothing; add cpu, memory or lag")
        return self

    @property
    def subject(self) -> str:
        """The prototype."""
        return self.resources

    @property
    def conditions(self) -> Mapping[str, AnyCondition]:
        """The conditions by the names of the resources."""
        return _conditions(self, RESOURCES)


SCORES = (
    *("precision", "recall", "f1", "false_alarm_rate", "false_alarms", "missed_alarm_rate"),
    "delay",
)
MEASURES = ("overshoot", "settling_time", "energy", "cycle_time")
RESOURCES = ("cpu", "memory", "lag")
KINDS: Mapping[str, type[AnyExpectation]] = {
    kind.word: kind
    for kind in (
        *(AlwaysExpectation, EventuallyExpectation, NeverExpectation, CountExpectation),
        *(RateExpectation, SettlesExpectation, DetectionExpectation, ControlExpectation),
        ResourceExpectation,
    )
}
"""The model of each kind, by the field that tells it from all others."""


def _conditions(expectation: BaseModel, names: tuple[str, ...]) -> Mapping[str, AnyCondition]:
    conditions = {name: getattr(expectation, name) for name in names}
    return {name: condition for name, condition in conditions.items() if condition is not None}


def _of_kind(value: Any, _: ValidatorFunctionWrapHandler) -> AnyExpectation:
    """Validate an expectation by the model of its kind, so that a mistake names fields alone."""
    if isinstance(value, AnyExpectation):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("an expectation has fields, such as {signal: …, always: {below: 3}}")
    words = [word for word in KINDS if word in value]
    if not words:
        names = f"{', '.join(KINDS)}{field_choice.meant(value, KINDS)}"
        raise ValueError(f"it expects nothing: add one of the fields {names}")
    if len(words) > 1:
        raise ValueError(f"`{words[0]}` and `{words[1]}` are two expectations; write two entries")
    return KINDS[words[0]].model_validate(value)


Expectation = Annotated[
    AlwaysExpectation
    | EventuallyExpectation
    | NeverExpectation
    | CountExpectation
    | RateExpectation
    | SettlesExpectation
    | DetectionExpectation
    | ControlExpectation
    | ResourceExpectation,
    WrapValidator(_of_kind),
]
"""Any expectation, as a field of a model: `tuple[Expectation, ...]`."""
