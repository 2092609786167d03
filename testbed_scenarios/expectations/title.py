"""The title of an expectation: its name in the file, or a phrase made of its fields.  Pure."""

from broker import time_expressions
from testbed_scenarios.expectations.model import (
    AlwaysExpectation,
    AnyExpectation,
    ControlExpectation,
    CountExpectation,
    DetectionExpectation,
    EventuallyExpectation,
    NeverExpectation,
    RateExpectation,
    RepeatedExpectation,
    ResourceExpectation,
    SettlesExpectation,
    SignalExpectation,
)


def title_of(expectation: AnyExpectation) -> str:
    """The name of an expectation, or a phrase such as `rig/Pressure always below 3`."""
    if expectation.name:
        return expectation.name
    phrase = f"{expectation.subject} {_predicate(expectation)}"
    if isinstance(expectation, RepeatedExpectation) and expectation.after is not None:
        phrase = f"{phrase} after {expectation.after.kind}"
    elif expectation.from_ns or expectation.to_ns is not None:
        phrase = f"{phrase} from {time_expressions.duration_text(expectation.from_ns)}"
        if expectation.to_ns is not None:
            phrase = f"{phrase} to {time_expressions.duration_text(expectation.to_ns)}"
    return phrase


def _predicate(expectation: AnyExpectation) -> str:
    match expectation:
        case SignalExpectation():
            return _signal_predicate(expectation)
        case CountExpectation():
            return f"has {expectation.count.text()} samples"
        case RateExpectation():
            return f"has a rate of {expectation.rate.text('/s')}"
        case DetectionExpectation():
            names = ", ".join(expectation.conditions).replace("_", " ")
            return f"detects the faults of {expectation.truth} by {expectation.by}: {names}"
        case ControlExpectation() | ResourceExpectation():
            return ", ".join(expectation.conditions).replace("_", " ")
        case _:
            return expectation.word


def _signal_predicate(expectation: SignalExpectation) -> str:
    match expectation:
        case AlwaysExpectation():
            return f"always {expectation.always.text()}"
        case NeverExpectation():
            return f"never {expectation.never.text()}"
        case EventuallyExpectation(within_ns=within_ns):
            words = f"eventually {expectation.eventually.text()}"
            if within_ns is None:
                return words
            return f"{words} within {time_expressions.duration_text(within_ns)}"
        case SettlesExpectation(settles=settling):
            within = time_expressions.duration_text(settling.within_ns)
            return f"settles to {settling.to:g} ± {settling.band:g} within {within}"
        case _:
            return expectation.word
