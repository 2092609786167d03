"""Fetches stored samples of a stream as columns."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ValidationError

from broker import api_client, clock, codec
from broker.aggregation import Aggregation
from broker.batch import NUMPY, Gap, Series, Times
from broker.errors import Corrupt, Invalid, Unknown
from broker.namespace import StreamAddress
from broker.responses.streams import HistoryResponse
from broker.streams import Dtype, StreamSpec
from testbed_sdk import table
from testbed_sdk.table import Fill, SignalColumn

if TYPE_CHECKING:
    import pandas as pd

OTHER_SPACE = "TESTBED_SPACE, or --space of a command, names another space"


@dataclass(frozen=True, slots=True)
class History:
    """Stored samples of some signals over a span, ascending in time, and the gaps that touch it.

    spec: with the dtypes of `series`.
    """

    spec: StreamSpec
    series: Mapping[str, Series]
    gaps: tuple[Gap, ...]

    def __getitem__(self, signal: str) -> Series:
        """The samples of one signal; raises Invalid for one that was not fetched."""
        self._dtype(signal)
        return self.series[signal]

    def gaps_of(self, signal: str) -> tuple[Gap, ...]:
        """Return the gaps of one signal; a gap without signals is of all."""
        self.spec.signal(signal)
        return table.gaps_of(self.gaps, signal)

    def table(self, *signals: str, fill: Fill = None) -> tuple[Times, npt.NDArray[Any]]:
        """Return (time_ns int64[n], values [n, k]) of these signals, or all: a row a time stamp.

        fill: None leaves a cell empty (NaN, None for text) where its signal has no sample at the
        time of the row; "last" carries the signal's last value of this span forward, but never over
        a gap or a bad sample.  Bools and integers come as float64; `pandas` keeps them.
        """
        return table.aligned(self._columns(signals), fill=fill)

    def pandas(self, *signals: str, fill: Fill = None) -> "pd.DataFrame":
        """Return a DataFrame with a column a signal and a DatetimeIndex in UTC.

        A bool stays a bool, an integer an integer, a text a text; where values are missing a column
        is nullable (`boolean`, `Int64`, `string`).  fill: as in `table`.  Needs the extra `pandas`;
        raises Refused without it.
        """
        return table.data_frame(self._columns(signals), fill=fill)

    def _columns(self, signals: Sequence[str]) -> list[SignalColumn]:
        return [
            SignalColumn(
                name,
                self._dtype(name),
                self.series[name],
                table.gaps_of(self.gaps, name),
            )
            for name in signals or self.series
        ]

    def _dtype(self, name: str) -> Dtype:
        """The dtype of a signal; raises Invalid if the stream has none, or it was not fetched."""
        dtype = self.spec.signal(name).dtype
        if name not in self.series:
            raise Invalid(
                f"this history of {self.spec.address} has no signal {name!r}: it was not asked for",
                hint=f"it has {', '.join(self.series)}",
            )
        return dtype


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A query of history from `from_ns` to before `to_ns`.

    signals: empty for all.  points: thin each signal to about so many samples, None for all.
    aggregation: one value a window in place of the samples, None for the samples.
    """

    space: str
    from_ns: int
    to_ns: int
    signals: tuple[str, ...] = ()
    points: int | None = None
    aggregation: Aggregation | None = None

    def span_params(self) -> dict[str, Any]:
        """Space and span as parameters of the API's routes."""
        ends = {"from": clock.text_of(self.from_ns), "to": clock.text_of(self.to_ns)}
        return {"space": self.space} | ends

    def params(self) -> dict[str, Any]:
        """The whole query as parameters of the API's route."""
        params = self.span_params() | {"signals": list(self.signals)}
        if self.points is not None:
            params["points"] = self.points
        if self.aggregation is not None:
            params |= {"every": self.aggregation.every, "how": self.aggregation.how.value}
        return params


class _Columns(HistoryResponse):
    """A history whose frames the codec decodes: columns, which no model looks at value by value."""

    frames: list[Any]


async def fetch(api: api_client.Api, address: StreamAddress, query: HistoryQuery) -> History:
    """Fetch history through the API; raises Refused, Unavailable, or Corrupt if it breaks off."""
    path = f"/streams/{address}/history"
    with space_named(query.space):
        async with api.stream(path, params=query.params()) as response:
            payload = await response.aread()
    try:
        answer = _Columns.model_validate(orjson.loads(payload))
    except (orjson.JSONDecodeError, ValidationError) as exc:
        raise Corrupt(f"the history of {address} broke off", hint="ask again, or for less") from exc
    spec = await api.spec(address, answer.spec)
    if query.aggregation is not None:
        spec = query.aggregation.spec(spec)
    frames, _ = codec.frames_from_json(answer.frames, spec)
    parts: dict[str, list[Series]] = {name: [] for name in query.signals or spec.names}
    for frame in frames:
        for name, series in frame.series():
            parts[name].append(series)
    joined = {name: _joined(pieces, spec, name) for name, pieces in parts.items()}
    return History(spec, joined, tuple(gap.gap() for gap in answer.gaps))


@contextmanager
def space_named(space: str) -> Iterator[None]:
    """Add the space to the error of a stream that is not there: it may be in another one."""
    try:
        yield
    except Unknown as exc:
        if not exc.message.startswith("there is no stream"):
            raise
        hints = filter(None, (OTHER_SPACE, exc.hint))
        message = f"{exc.message} in space {space} that you may read"
        raise Unknown(message, hint="; ".join(hints)) from exc


def _joined(parts: list[Series], spec: StreamSpec, name: str) -> Series:
    if not parts:
        dtype = NUMPY[spec.signal(name).dtype]
        return Series(np.empty(0, np.int64), np.empty(0, dtype), np.empty(0, np.uint8))
    return Series(*(np.concatenate(column) for column in zip(*parts, strict=True)))
