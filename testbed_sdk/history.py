"""Fetches stored samples of a stream as columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ValidationError

from broker import api_client, clock, codec
from broker.batch import NUMPY, Gap, Series, Times
from broker.errors import Corrupt
from broker.namespace import StreamAddress
from broker.responses.streams import HistoryResponse
from broker.streams import StreamSpec
from testbed_sdk import columns

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class History:
    """Stored samples of some signals over a span, ascending in time, and the gaps that touch it."""

    spec: StreamSpec
    series: Mapping[str, Series]
    gaps: tuple[Gap, ...]

    def __getitem__(self, signal: str) -> Series:
        """The samples of one signal."""
        return self.series[signal]

    def gaps_of(self, signal: str) -> tuple[Gap, ...]:
        """Return the gaps of one signal; a gap without signals is of all."""
        self.spec.signal(signal)
        return tuple(gap for gap in self.gaps if not gap.signals or signal in gap.signals)

    def numpy(self, *signals: str) -> tuple[Times, npt.NDArray[Any]]:
        """Return (time_ns int64[n], values [n, k]) of these signals, or all: `columns.aligned`."""
        return columns.aligned([self.series[name] for name in signals or self.series])

    def pandas(self, *signals: str) -> "pd.DataFrame":
        """Return a DataFrame with a column a signal and the index in UTC; needs pandas."""
        import pandas as pd  # noqa: PLC0415 - the SDK works without it

        names = list(signals or self.series)
        times, table = self.numpy(*names)
        index = pd.to_datetime(times, unit="ns", utc=True)
        return pd.DataFrame(table, index=index.rename("time"), columns=names)


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A query of history from `from_ns` to before `to_ns`.

    signals: empty for all.  points: thin each signal to about so many samples, None for all.
    """

    space: str
    from_ns: int
    to_ns: int
    signals: tuple[str, ...] = ()
    points: int | None = None


class _Columns(HistoryResponse):
    """A history whose frames the codec decodes: columns, which no model looks at value by value."""

    frames: list[Any]


async def fetch(api: api_client.Api, address: StreamAddress, query: HistoryQuery) -> History:
    """Fetch history through the API; raises Refused, Unavailable, or Corrupt if it breaks off."""
    params: dict[str, Any] = {
        "space": query.space,
        "from": clock.text_of(query.from_ns),
        "to": clock.text_of(query.to_ns),
        "signals": list(query.signals),
    }
    if query.points is not None:
        params["points"] = query.points
    async with api.stream(f"/streams/{address}/history", params=params) as response:
        payload = await response.aread()
    try:
        answer = _Columns.model_validate(orjson.loads(payload))
    except (orjson.JSONDecodeError, ValidationError) as exc:
        raise Corrupt(f"the history of {address} broke off", hint="ask again, or for less") from exc
    spec = await api.spec(address, answer.spec)
    frames, _ = codec.frames_from_json(answer.frames, spec)
    parts: dict[str, list[Series]] = {name: [] for name in query.signals or spec.names}
    for frame in frames:
        for name, series in frame.series():
            parts[name].append(series)
    joined = {name: _joined(pieces, spec, name) for name, pieces in parts.items()}
    return History(spec, joined, tuple(gap.gap() for gap in answer.gaps))


def _joined(parts: list[Series], spec: StreamSpec, name: str) -> Series:
    if not parts:
        dtype = NUMPY[spec.signal(name).dtype]
        return Series(np.empty(0, np.int64), np.empty(0, dtype), np.empty(0, np.uint8))
    return Series(*(np.concatenate(column) for column in zip(*parts, strict=True)))
