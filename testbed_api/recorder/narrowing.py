"""Narrows a flush that fails down to whose messages make it fail.

The messages are settled again in ever smaller parts: those of each organisation, then of each of
its streams, then one by one.  So what fails holds up nothing beside it, whatever the error is.  The
flush of all takes the first of these steps, and the quarantine of each organisation the others.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed_api.recorder.flush import ReceivedMessage

IN_VAIN = 3
"""After so many parts that fail, and none that does not, the others are not tried."""
_MESSAGES = 2
"""Depth of the narrowest scopes, of one message each; 0 is that of organisations."""


class MessageScope(NamedTuple):
    """The messages of an organisation, of one of its streams, or one message.

    stream: with its space; empty for all.  message: epoch and number; empty for all of the stream.
    """

    organisation: str
    stream: str = ""
    message: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.stream or self.organisation, self.message)))


class Settlement(NamedTuple):
    """The result of settling messages.

    failure: why they are not settled, empty if they are.  is_slow: they took so long that others
    would have waited.  is_divisible: nothing was tried, as they are too many at once.
    """

    failure: str = ""
    is_slow: bool = False
    is_divisible: bool = False


Settle = Callable[[Sequence[ReceivedMessage]], Awaitable[Settlement]]


@dataclass(slots=True)
class Narrowed:
    """The result of narrowing.

    settled: number of messages.  failed: the narrowest scopes that fail, with the reasons.  left:
    their messages, likewise.  is_slow: whether any part was settled slowly.
    """

    settled: int = 0
    failed: dict[MessageScope, str] = field(default_factory=dict)
    left: list[tuple[ReceivedMessage, str]] = field(default_factory=list)
    is_slow: bool = False

    def add(self, other: "Narrowed") -> None:
        """Add the result of other messages."""
        self.settled += other.settled
        self.failed |= other.failed
        self.left += other.left
        self.is_slow |= other.is_slow

    def leave(self, scope: MessageScope, part: Sequence[ReceivedMessage], why: str) -> None:
        """Add the messages of a scope that fail."""
        self.left += [(message, why) for message in part]
        if not scope.message or is_numbered(part[0]):  # else it does not come again
            self.failed[scope] = why


def scopes_of(message: ReceivedMessage) -> tuple[MessageScope, MessageScope, MessageScope]:
    """The scopes that a message with samples belongs to, the widest first."""
    topic, document = message.topic, message.document
    assert topic is not None  # noqa: S101 - for the types: it has samples
    assert document is not None  # noqa: S101 - likewise
    organisation, stream = topic.address.organisation, f"{topic.space}:{topic.address}"
    number = f"{document.epoch}/{document.seq}" if is_numbered(message) else f"at {id(message)}"
    return (
        MessageScope(organisation),
        MessageScope(organisation, stream),
        MessageScope(organisation, stream, number),
    )


def is_numbered(message: ReceivedMessage) -> bool:
    """Whether the publisher sends a message again until it is marked."""
    document = message.document
    return document is not None and bool(document.epoch) and document.seq is not None


async def separate(
    messages: Sequence[ReceivedMessage], settle: Settle, *, failure: str, turn: int = 0
) -> Narrowed:
    """Settle messages with samples that fail together, and leave over the widest parts that fail.

    The parts are organisations, or where there is only one its streams, or the messages of its only
    stream.  Parts that fail are not narrowed any further, so that nobody waits for that: once one
    fails slowly, and another does not, the rest is left over without a try.  turn: counts the tries
    in vain before; each begins with other parts.
    """
    result = Narrowed()
    if not messages:
        return result
    depth = next((each for each in range(_MESSAGES) if len(_parts(messages, each)) > 1), _MESSAGES)
    failing = await _settle_parts(
        _parts(messages, depth, turn), settle, result, failure=failure, gives_up=True
    )
    for scope, part, why in failing:
        result.leave(scope, part, why)
    return result


async def narrow(
    messages: Sequence[ReceivedMessage], settle: Settle, *, failure: str = "", depth: int = 0
) -> Narrowed:
    """Settle messages with samples in parts; those that fail are left over.

    settle: settles all of some messages, or none.  failure: why all together are not settled, if
    that was tried.  depth: of the scopes to begin with, 0 for organisations.
    """
    result = Narrowed()
    if not messages:
        return result
    parts = _parts(messages, depth)
    failing = await _settle_parts(parts, settle, result, failure=failure)
    is_among_others = bool(result.settled) or len(parts) == 1
    for scope, part, why in failing:
        narrower = Narrowed()
        if is_among_others and depth < _MESSAGES:
            narrower = await narrow(part, settle, failure=why, depth=depth + 1)
        if narrower.settled:
            result.add(narrower)
        else:
            result.leave(scope, part, why)
    return result


async def _settle_parts(
    parts: Mapping[MessageScope, Sequence[ReceivedMessage]],
    settle: Settle,
    result: Narrowed,
    *,
    failure: str,
    gives_up: bool = False,
) -> list[tuple[MessageScope, Sequence[ReceivedMessage], str]]:
    """Settle parts one after the other, and return those that fail, with the reasons.

    result: gets those that are settled.  gives_up: whether the rest counts as failing once one part
    failed slowly and another was settled.
    """
    failing: list[tuple[MessageScope, Sequence[ReceivedMessage], str]] = []
    has_waited = False
    for scope, part in parts.items():
        is_in_vain = len(failing) >= IN_VAIN and not result.settled
        if is_in_vain or (gives_up and has_waited and result.settled):
            failing.append((scope, part, failing[-1][2]))
            continue
        if failure and len(parts) == 1:
            failing.append((scope, part, failure))
            continue
        async for portion, settlement in _settle_portions(part, settle):
            if settlement.failure:
                failing.append((scope, portion, settlement.failure))
                has_waited |= settlement.is_slow
            else:
                result.settled += len(portion)
                result.is_slow |= settlement.is_slow
    return failing


async def _settle_portions(
    part: Sequence[ReceivedMessage], settle: Settle
) -> AsyncIterator[tuple[Sequence[ReceivedMessage], Settlement]]:
    """Settle a part, halved as often as it is too much at once; yields each portion's result."""
    portions = [part]
    while portions:
        portion = portions.pop()
        settlement = await settle(portion)
        if settlement.is_divisible and len(portion) > 1:
            half = len(portion) // 2
            portions += [portion[half:], portion[:half]]
        else:
            yield portion, settlement


def _parts(
    messages: Sequence[ReceivedMessage], depth: int, turn: int = 0
) -> Mapping[MessageScope, Sequence[ReceivedMessage]]:
    """The messages by scope; first those of both ends and the middle: not all may be tried."""
    parts: dict[MessageScope, list[ReceivedMessage]] = {}
    for message in messages:
        parts.setdefault(scopes_of(message)[depth], []).append(message)
    scopes = list(parts)
    begin = 2 * turn % len(scopes)  # two of those of the ends are new in each turn
    scopes = scopes[begin:] + scopes[:begin]
    spread = (scopes[0], scopes[-1], scopes[len(scopes) // 2], *scopes)
    return {scope: parts[scope] for scope in spread}
