"""Names of streams and signals for a first mapping, derived from a machine's own names.  Pure."""

import re
from collections.abc import Collection

_EDGE = r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$"


def stream_id(text: str) -> str:
    """The id of a stream, short enough for a number behind it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:36].strip("-") or "stream"


def signal_name(text: str) -> str:
    """The name of a signal."""
    plain = re.sub(_EDGE, "", re.sub(r"[^A-Za-z0-9 _.-]+", "-", text))
    return re.sub(_EDGE, "", plain[:60]) or "signal"


def unused(name: str, used: Collection[str]) -> str:
    """The name, with a number behind it if it is used already."""
    number, numbered = 1, name
    while numbered in used:
        number += 1
        numbered = f"{name[:58]}-{number}"
    return numbered
