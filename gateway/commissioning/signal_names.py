"""Names for a first mapping, made from what a machine calls its things.  Pure."""

import re
from collections.abc import Collection

_EDGE = r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$"


def id_of(text: str) -> str:
    """A stream's id, with room for a number behind it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:36].strip("-") or "stream"


def signal_of(text: str) -> str:
    """A signal's name."""
    plain = re.sub(_EDGE, "", re.sub(r"[^A-Za-z0-9 _.-]+", "-", text))
    return re.sub(_EDGE, "", plain[:60]) or "signal"


def free(name: str, taken: Collection[str]) -> str:
    """The name, numbered on if it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name[:58]}-{number}"
    return found
