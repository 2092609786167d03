"""Looks up specs in the registry whose messages have not come to the recorder.

A spec is a retained message.  NATS acknowledges one some milliseconds before it lists it: published
at the moment at which the recorder subscribes for the first time, it comes neither as a message nor
as a retained one (decision 0112).  Its publisher would not send it again before its next
connection, and the batches of its stream would wait as long.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from broker import messages
from broker.bus.inbox import Message
from broker.clock import NS_PER_S, Clock
from broker.namespace import EquipmentAddress, EquipmentKind, StreamAddress, StreamTopic, Verb
from broker.streams import StreamSpec
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.flush import ReceivedMessage
from testbed_api.recorder.spec_versions import SpecKey

OVERDUE_NS = 2 * NS_PER_S
"""A batch waits so long for the message of its spec: thousands that register need a moment."""
MOST_AT_ONCE = 500

KindOf = Callable[[EquipmentAddress], Awaitable[EquipmentKind | None]]
SpecsOf = Callable[[Collection[tuple[StreamAddress, int]]], Awaitable[Sequence[StreamSpec]]]


class RegistryLookups(NamedTuple):
    """Functions that look something up in the registry.

    kind: of an equipment, None if it is not registered.  specs: registered ones, of streams and
    their versions.
    """

    kind: KindOf
    specs: SpecsOf


class OverdueSpecs:
    """Specs that were looked up in the registry, as if their messages had come."""

    def __init__(self, specs_of: SpecsOf, clock: Clock) -> None:
        self._specs_of = specs_of
        self._clock = clock
        self._looked_up_ns = -OVERDUE_NS

    async def messages(
        self, candidates: Iterable[ReceivedMessage], known: Mapping[SpecKey, StreamSpec]
    ) -> list[ReceivedMessage]:
        """The messages of specs for which candidates wait, looked up every two seconds at most.

        known: specs that have come.
        """
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._looked_up_ns < OVERDUE_NS:
            return []
        keys = {
            message.spec_key
            for message in candidates
            if message.spec_key is not None
            and now_ns - message.since_ns >= OVERDUE_NS
            and message.spec_key not in known
        }
        if not keys:
            return []
        self._looked_up_ns = now_ns
        wanted = sorted(keys)[:MOST_AT_ONCE]
        specs = await self._specs_of({(address, version) for _, address, version in wanted})
        by_version = {(spec.address, spec.version): spec for spec in specs}
        return [
            _message(space, by_version[address, version], now_ns)
            for space, address, version in wanted
            if (address, version) in by_version
        ]


def _message(space: str, spec: StreamSpec, now_ns: int) -> ReceivedMessage:
    topic = str(StreamTopic(space, Verb.SPEC, spec.address))
    return recorder_flush.read(Message(topic, messages.encode_spec(spec)), now_ns)
