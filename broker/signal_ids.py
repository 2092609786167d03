"""Names of signals derived from names that people wrote, in any script.  Pure."""

import re
from collections.abc import Collection

from anyascii import anyascii

MOST = 64
_EDGE = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", re.ASCII)
_OTHER = re.compile(r"[^A-Za-z0-9 _.-]+", re.ASCII)
_GERMAN = str.maketrans(
    {"Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ä": "ae", "ö": "oe", "ü": "ue", "Δ": "delta ", "µ": "u"}
)


def of_text(text: str, taken: Collection[str] = ()) -> str:
    """The name of a signal that somebody called `text`: transliterated, and apart from others.

    taken: names that are in use; a number is put behind one that is.  Texts that differ only behind
    the 64th character differ by that number.
    """
    plain = _OTHER.sub("-", anyascii(text.translate(_GERMAN)))
    name = _EDGE.sub("", _EDGE.sub("", plain)[:MOST]) or "signal"
    number, numbered = 1, name
    while numbered in taken:
        number += 1
        end = f"-{number}"
        numbered = _EDGE.sub("", name[: MOST - len(end)]) + end
    return numbered
