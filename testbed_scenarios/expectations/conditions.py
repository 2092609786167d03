"""The one language of conditions: below, above, at_least, at_most, between, is.  Pure.

Several words in one condition must all hold.  A condition gives a value a margin: the distance to
where it would begin to fail (positive) or to hold (negative), in the unit of the value.  Source:
quantitative semantics of signal temporal logic; Donzé and Maler, Robust Satisfaction of Temporal
Logic over Real-Valued Signals, FORMATS 2010.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker import time_expressions
from broker.streams import Dtype, Signal
from testbed_scenarios.expectations.quantities import (
    Count,
    Energy,
    Memory,
    Multiple,
    Number,
    PerSecond,
    Share,
)
from testbed_scenarios.quantities import DurationBoundNs

QuantityT = TypeVar("QuantityT", float, int)
Scalar = bool | float | str
_TRUTHS = {"true": True, "false": False}


class Judgement(NamedTuple):
    """The answer of a condition about n values.

    holds: bool[n].  margin: float64[n], > 0 only where it holds and < 0 only where it does not, NaN
    where a value has no distance, as a text or a bool.
    """

    holds: npt.NDArray[np.bool_]
    margin: npt.NDArray[np.float64]


class Condition(BaseModel, Generic[QuantityT]):
    """A condition on a number: one word or several, which must all hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    below: QuantityT | None = Field(None, description="The value is less than this")
    above: QuantityT | None = Field(None, description="The value is greater than this")
    at_least: QuantityT | None = Field(None, description="The value is this or more")
    at_most: QuantityT | None = Field(None, description="The value is this or less")
    between: tuple[QuantityT, QuantityT] | None = Field(
        None, description="The value lies between these two, or is one of them"
    )
    exactly: QuantityT | None = Field(None, alias="is", description="The value is exactly this")

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        """Say which words a bound that stands alone needs."""
        if isinstance(value, Mapping | BaseModel):
            return value
        text = str(value)
        if isinstance(value, list) or not text.lstrip("+-.")[:1].isdecimal():
            raise ValueError("a condition has a word and a bound, such as {at_least: 1}")
        raise ValueError(f"a bound needs a word: write {{at_least: {text}}} or {{at_most: {text}}}")

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        names = type(self).model_fields
        words = [name for name in names if getattr(self, name) is not None]
        if not words:
            raise ValueError(
                "a condition needs a word: below, above, at_least, at_most, between or is"
            )
        if self.exactly is not None and len(words) > 1:
            raise ValueError("`is` names the only value that holds; leave the other words out")
        low, high = self.low, self.high
        if low > high or (low == high and not self._holds_at(low)):
            raise ValueError("no value can fulfil all words of this condition")
        return self

    @property
    def low(self) -> float:
        """The greatest of the lower bounds, minus infinity without one."""
        between = self.between[0] if self.between else None
        return max(_given(-math.inf, self.above, self.at_least, between))

    @property
    def high(self) -> float:
        """The least of the upper bounds, infinity without one."""
        between = self.between[1] if self.between else None
        return min(_given(math.inf, self.below, self.at_most, between))

    def judge(self, values: npt.ArrayLike) -> Judgement:
        """Judge n numbers."""
        numbers = np.asarray(values, np.float64)
        if self.exactly is not None:
            return _equality(numbers, float(self.exactly))
        holds = np.ones(numbers.shape, np.bool_)
        if self.below is not None:
            holds &= numbers < self.below
        if self.above is not None:
            holds &= numbers > self.above
        holds &= (numbers >= self._inclusive_low) & (numbers <= self._inclusive_high)
        return Judgement(holds, np.minimum(numbers - self.low, self.high - numbers))

    @property
    def _inclusive_low(self) -> float:
        between = self.between[0] if self.between else None
        return max(_given(-math.inf, self.at_least, between))

    @property
    def _inclusive_high(self) -> float:
        between = self.between[1] if self.between else None
        return min(_given(math.inf, self.at_most, between))

    def _holds_at(self, number: float) -> bool:
        return bool(self.judge([number]).holds[0])

    def text(self, unit: str = "", show: Callable[[float], str] | None = None) -> str:
        """The condition in words, such as `below 0.5 bar`.

        show: writes a bound, in the place of the number and the unit.
        """
        write = functools.partial(self._shown, unit=unit) if show is None else show
        words = [
            f"{name.replace('_', ' ')} {write(bound)}"
            for name in ("below", "above", "at_least", "at_most")
            if (bound := getattr(self, name)) is not None
        ]
        if self.between is not None:
            low, high = map(write, self.between)
            words.append(f"between {low} and {high}")
        if self.exactly is not None:
            words.append(write(self.exactly))
        return " and ".join(words)

    def _shown(self, bound: Any, unit: str) -> str:
        return f"{bound:g} {unit}".rstrip()


class NumberCondition(Condition[Count]):
    """A condition on a plain number, such as a count."""


class ShareCondition(Condition[Share]):
    """A condition on a share, in which 80 % and 0.8 are the same."""


class MultipleCondition(Condition[Multiple]):
    """A condition on a share that may be more than the whole, such as 150 %."""


class RateCondition(Condition[PerSecond]):
    """A condition on a rate."""


class MemoryCondition(Condition[Memory]):
    """A condition on a size of memory."""


class EnergyCondition(Condition[Energy]):
    """A condition on an energy."""


class DurationCondition(Condition[DurationBoundNs]):
    """A condition on a duration."""

    def _shown(self, bound: Any, unit: str) -> str:  # noqa: ARG002 - a duration names its own
        return time_expressions.duration_text(bound)


class SignalCondition(Condition[Number]):
    """A condition on the values of a signal, in its unit; `is` takes a bool or a text too."""

    exactly: Scalar | None = Field(  # type: ignore[assignment] # wider than a number's
        None, alias="is", description="The value is exactly this: true, false, a number or a text"
    )

    def judge(self, values: npt.ArrayLike) -> Judgement:
        """Judge n values of a signal of any dtype."""
        column = np.asarray(values)
        if self.exactly is None:
            return super().judge(column)
        if column.dtype == np.bool_:
            return _identity(column == _TRUTHS.get(str(self.exactly).lower()))
        if column.dtype == np.object_:
            return _identity(np.array([value == str(self.exactly) for value in column], np.bool_))
        return _equality(column.astype(np.float64), _number(self.exactly))

    def mismatch(self, signal: Signal) -> str:
        """A sentence that says why the condition cannot be about a signal, empty if it can."""
        if signal.shape != ():
            return f"{signal.name} is an array, which is not compared; publish one number of it"
        if signal.dtype in {Dtype.BOOL, Dtype.STRING} and self.exactly is None:
            example = "is: true" if signal.dtype is Dtype.BOOL else "is: running"
            return f"{signal.name} is a {signal.dtype}, which is not compared; write {{{example}}}"
        if signal.dtype is Dtype.BOOL and str(self.exactly).lower() not in _TRUTHS:
            return f"{signal.name} is a bool, and never {self.exactly!r}; write true or false"
        is_number = signal.dtype in {Dtype.FLOAT64, Dtype.INT64}
        if is_number and self.exactly is not None and math.isnan(_number(self.exactly)):
            return f"{signal.name} is a number, and never {self.exactly!r}"
        return ""

    def _shown(self, bound: Any, unit: str) -> str:
        if isinstance(bound, bool):
            return "true" if bound else "false"
        return bound if isinstance(bound, str) else super()._shown(bound, unit)


def _given(default: float, *bounds: float | None) -> list[float]:
    """The bounds that are there, and a default."""
    return [default, *(bound for bound in bounds if bound is not None)]


def _number(value: Scalar) -> float:
    """The number that a scalar of the file is, NaN if it is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _equality(numbers: npt.NDArray[np.float64], bound: float) -> Judgement:
    return Judgement(numbers == bound, -np.abs(numbers - bound))


def _identity(holds: npt.NDArray[np.bool_]) -> Judgement:
    return Judgement(holds, np.full(holds.shape, math.nan))
