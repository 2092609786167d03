"""The query of a stream's history: its space, span, signals, and thinning or windows.  Pure."""

from dataclasses import dataclass
from typing import Any

from broker import clock
from broker.aggregation import Aggregation


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A query of history from `from_ns` to before `to_ns`.

    signals: empty for all.  points: thin each signal to about so many samples, None for all.
    aggregation: one value a window in place of the samples, None for the samples.  is_recording:
    the samples go into a recording, which the access report of the stream's owner says.
    """

    space: str
    from_ns: int
    to_ns: int
    signals: tuple[str, ...] = ()
    points: int | None = None
    aggregation: Aggregation | None = None
    is_recording: bool = False

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
        if self.is_recording:
            params["recording"] = "true"
        return params
