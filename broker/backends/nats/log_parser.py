"""Parses the lines of nats-server's log that report a refused publish or subscription.  Pure.

The server refuses these by itself, from the permissions that the auth callout gave to the
connection, and reports them nowhere but in its log.  A line counts only if all of it matches the
pattern below.  What a client chooses in it, its client id and its topic, stands in quotes with
Go's escapes, so that no choice of theirs ends a quoted part or a line.  A client is admitted only
with a client id of its principal (`auth_callout.is_bound`), so the client id names the principal.

Source: the log of nats-server 2.15.1, see decision 0075.
"""

import ast
import re
from dataclasses import dataclass
from enum import StrEnum

from broker.backends.nats.auth_callout import principal_of

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_HOST = r"(?P<host>\[[0-9a-fA-F:.%]+\]|[0-9.]+):[0-9]{1,5}"
_LINE = re.compile(
    r"\[[0-9]+\] [0-9/]+ [0-9:.]+ \[ERR\] "
    rf"{_HOST} - mid:[0-9]+ - (?P<client>{_QUOTED})(?: - {_QUOTED})?"
    rf" - (?P<kind>Publish|Subscription) Violation - Subject (?P<subject>{_QUOTED})(?:, .*)?"
)
_MARK = b" Violation - Subject "
_LEVELS = {"*": "+", ">": "#"}


class TopicAct(StrEnum):
    """An act on a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRefusal:
    """A publish or a subscription that the server refused.

    topic: topic or filter as MQTT writes it.  host: address that the client connected from.
    """

    act: TopicAct
    principal: str
    client_id: str
    topic: str
    host: str


def read(line: bytes) -> TopicRefusal | None:
    """Parse a line of any bytes; returns None if it reports no refusal."""
    if _MARK not in line:  # of a flood of other lines each costs this look alone
        return None
    match = _LINE.fullmatch(line.decode(errors="replace").rstrip("\r"))
    if match is None:
        return None
    client_id = _unquoted(match["client"])
    is_publish = match["kind"] == "Publish"
    return TopicRefusal(
        act=TopicAct.PUBLISH if is_publish else TopicAct.SUBSCRIBE,
        principal=principal_of(client_id),
        client_id=client_id,
        topic=topic_of(_unquoted(match["subject"])),
        host=match["host"].strip("[]"),
    )


def topic_of(subject: str) -> str:
    """The MQTT topic or filter of a NATS subject; of one that no grant covers, for people only."""
    return "/".join(_LEVELS.get(level, level) for level in subject.split("."))


def _unquoted(text: str) -> str:
    """The text that Go wrote with %q; one with escapes that Python does not know stays as it is."""
    if "\\" not in text:
        return text[1:-1]
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return text[1:-1]
