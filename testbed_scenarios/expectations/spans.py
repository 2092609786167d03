"""The spans of a run that an expectation is about: one, or one after each occurrence.  Pure."""

from dataclasses import dataclass

from testbed_scenarios.expectations.model import AnyExpectation, Occurrences, RepeatedExpectation
from testbed_scenarios.held_signal import TimeSpan
from testbed_scenarios.observations import Observations


@dataclass(frozen=True, slots=True)
class ExpectedSpan:
    """One span of an expectation.

    span: in instants, cut at the end of the run; empty if all of it lies beyond.  is_cut: whether
    something was cut off.  base_ns: the instant that its ends are counted from.
    """

    span: TimeSpan
    is_cut: bool
    base_ns: int


def spans_of(
    expectation: AnyExpectation, observed: Observations, within_ns: int | None = None
) -> list[ExpectedSpan]:
    """The spans of an expectation in the order of time; none if what `after` names did not occur.

    within_ns: a span that includes its end, in the place of `to`.
    """
    spans = []
    for base_ns in bases_of(expectation, observed):
        begin_ns = base_ns + expectation.from_ns
        if within_ns is not None:
            end_ns = begin_ns + within_ns
            is_cut = end_ns > observed.end_ns
            end_ns = min(end_ns + 1, observed.end_ns)
        elif expectation.to_ns is not None:
            end_ns = base_ns + expectation.to_ns
            is_cut = end_ns > observed.end_ns
        else:
            end_ns, is_cut = observed.end_ns, begin_ns >= observed.end_ns
        span = TimeSpan(begin_ns, max(begin_ns, min(end_ns, observed.end_ns)))
        spans.append(ExpectedSpan(span, is_cut, base_ns))
    return spans


def bases_of(expectation: AnyExpectation, observed: Observations) -> list[int]:
    """The instants that the spans of an expectation are counted from, ascending, each once."""
    after = expectation.after if isinstance(expectation, RepeatedExpectation) else None
    return [observed.start_ns] if after is None else moments_of(after, observed)


def moments_of(after: Occurrences, observed: Observations) -> list[int]:
    """The instants of the occurrences of a fault or event in a run, ascending, each once."""
    if after.event is not None:
        moments = {
            event.at_ns
            for event in observed.events
            if event.kind == after.event and (after.on is None or after.on == event.on)
        }
        return sorted(moments)
    return sorted(
        {
            fault.from_ns if after.moment == "begin" else fault.to_ns
            for equipment, faults in observed.truth.items()
            for fault in faults
            if fault.kind == after.fault
            and (after.on is None or after.on in {equipment, f"{equipment}/{fault.signal}"})
        }
    )
