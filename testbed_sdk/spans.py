"""The span of time that a history is asked for."""

from broker import time_expressions
from broker.clock import HOUR_S, NS_PER_S
from broker.errors import Invalid
from broker.time_expressions import Time


def between(
    now_ns: int,
    *,
    from_: Time | None = None,
    to: Time | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
) -> tuple[int, int]:
    """Return the ends of a span, ns since 1970 UTC: the last hour up to its end by default.

    from_, to: times in the forms of `broker.time_expressions`, for who writes them at `now_ns`.
    from_ns, to_ns: the same ends as numbers.  Raises Invalid for a text that names no time, for an
    end that is given twice, and for a span that is empty or inverted.
    """
    end_ns = _end("to", to, to_ns, now_ns)
    begin_ns = _end("from_", from_, from_ns, now_ns)
    end_ns = now_ns if end_ns is None else end_ns
    begin_ns = end_ns - HOUR_S * NS_PER_S if begin_ns is None else begin_ns
    if begin_ns >= end_ns:
        raise Invalid(
            "the span is empty: it ends before it begins, or at once",
            hint="from_ must be earlier than to",
        )
    return begin_ns, end_ns


def _end(name: str, time: Time | None, time_ns: int | None, now_ns: int) -> int | None:
    """One end of the span, None where it is not given."""
    if time is None:
        return time_ns
    if time_ns is not None:
        plain = name.rstrip("_")
        raise Invalid(f"{name} and {plain}_ns are both given", hint="give one of them")
    return time_expressions.resolve(time, now_ns)
