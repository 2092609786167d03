"""Times of options: -10m, yesterday or a date becomes the instant that it names, for the API."""

from broker import clock, time_expressions
from broker.clock import WallClock
from broker.errors import Invalid
from testbed.terminal import run


def instant(text: str) -> str:
    """The instant that an option's text names now, as RFC 3339 text in UTC.

    A text that names none ends the command with the forms that are accepted.
    """
    try:
        exact = clock.text_of(time_expressions.resolve(text, WallClock().now_ns()))
    except Invalid as exc:
        run.fail(exc)
    return exact.removesuffix("Z").rstrip("0").rstrip(".") + "Z"
