"""Options and arguments that several commands share, and the example at the end of a help text."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.errors import Invalid
from testbed.terminal import durations, instants, run

EXAMPLE = "Example: "

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text, for scripts")]
Stream = Annotated[str, typer.Argument(help="address of a stream: organisation/equipment/stream")]
Streams = Annotated[
    list[str],
    typer.Argument(
        help="addresses of one or more streams: organisation/equipment/stream, or"
        " space:organisation/equipment/stream for another space than live"
    ),
]
Equipment = Annotated[str, typer.Argument(help="address of an equipment: organisation/equipment")]
Space = Annotated[
    str,
    typer.Option(
        "--space",
        envvar="TESTBED_SPACE",
        help="space of the samples: live, or run-<id> of a trial run",
    ),
]
AnySpace = Annotated[
    str | None,
    typer.Option("--space", help="only this space: live, or run-<id> (default: every space)"),
]
ExpiresIn = Annotated[
    float | None,
    typer.Option(
        "--expires-in",
        parser=durations.seconds,
        metavar="DURATION",
        help="time from now until it ends, such as 30d, 12h or 1d12h (default: never)",
    ),
]
Api = Annotated[
    str | None,
    typer.Option(
        help="URL of the testbed's API, http://host:port or https://host:port (default:"
        " TESTBED_API, or that of the last sign-in)"
    ),
]
Broker = Annotated[
    str | None,
    typer.Option(
        help="URL of its broker, mqtt://host:port or mqtts://host:port (default: TESTBED_BROKER, or"
        " the one that the API names)"
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the certificate authority of both (default: TESTBED_CA, or those that the"
        " system trusts)"
    ),
]
PrintUnit = Annotated[
    bool, typer.Option("--print", help="print the unit, and write nothing (default: write it)")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="accept connections without TLS, on any address")
]


def time(name: str, meaning: str) -> Any:
    """An option that takes a time as people write it; the command gets RFC 3339 text, in UTC.

    meaning: the help, with the default.
    """
    return typer.Option(name, parser=instants.instant, metavar="TIME", help=meaning)


def span_begin(default: str) -> Any:
    """The option --from: where a span begins."""
    forms = "such as -10m, yesterday, 2026-03-01 or 2026-03-01T08:00:00Z"
    return time("--from", f"beginning of the span, included, {forms} (default: {default})")


SpanEnd = Annotated[
    str | None,
    time("--to", "end of the span, not included, in the same forms (default: now)"),
]


def example(*lines: str) -> str:
    """The epilog of a command's help: one `Example:` line for each command line."""
    return "\n\n".join(f"{EXAMPLE}{line}" for line in lines)


def settings(kind: Callable[..., Any], **options: Any) -> Any:
    """Settings of class `kind` from options, and from TESTBED_… where an option is None.

    A value that is not valid ends the command with a sentence that names the setting.
    """
    try:
        return kind(**{name: value for name, value in options.items() if value is not None})
    except Invalid as exc:
        run.fail(exc)
