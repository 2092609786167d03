"""Fetches stored samples of a stream as columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from broker import api_client, codec
from broker.batch import Gap, Series, filled_column
from broker.errors import Corrupt, Invalid
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.responses.streams import HistoryResponse
from broker.streams import StreamSpec, ValueType
from testbed_sdk import table
from testbed_sdk.table import SignalColumn, Tabular


@dataclass(frozen=True, slots=True, repr=False)
class History(Tabular):
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

    def _stream(self) -> StreamAddress:
        return self.spec.address

    def _names(self) -> Iterable[str]:
        return self.series

    def _column(self, name: str) -> SignalColumn:
        return SignalColumn(
            name, self._dtype(name), self.series[name], table.gaps_of(self.gaps, name)
        )

    def _dtype(self, name: str) -> ValueType:
        """The type of a signal; raises Invalid if the stream has none, or it was not fetched."""
        dtype = self.spec.signal(name).type
        if name not in self.series:
            raise Invalid(
                f"this history of {self.spec.address} has no signal {name!r}: it was not asked for",
                hint=f"it has {', '.join(self.series)}",
            )
        return dtype


class _Columns(HistoryResponse):
    """A history whose frames the codec decodes: columns, which no model looks at value by value."""

    frames: list[Any]


async def fetch(api: api_client.Api, address: StreamAddress, query: HistoryQuery) -> History:
    """Fetch history through the API; raises Refused, Unavailable, or Corrupt if it breaks off."""
    path = f"/streams/{address}/history"
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


def _joined(parts: list[Series], spec: StreamSpec, name: str) -> Series:
    if not parts:
        column = filled_column(spec.signal(name).type, 0)
        return Series(np.empty(0, np.int64), column, np.empty(0, np.uint8))
    return Series(*(np.concatenate(column) for column in zip(*parts, strict=True)))
