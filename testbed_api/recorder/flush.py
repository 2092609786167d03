"""One flush: received messages, and the blocks, gaps and dead letters made of them.  Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from broker import codec, namespace
from broker.batch import MayRepeat, Times
from broker.bus.inbox import Message
from broker.errors import Corrupt, Invalid
from broker.namespace import StreamTopic
from broker.streams import StreamSpec
from testbed_api.recorder import bulk_decode
from testbed_api.recorder.ledger import DeadLetter, FlushEntries, StatedGap, StreamEpoch
from testbed_api.recorder.placement_ledger import BatchNumber
from testbed_api.recorder.spec_versions import SpecKey
from testbed_api.stores.port import Block

MOST_SPECS = 1_000
"""Specs that one flush stores, so that thousands at once do not hold up samples: the rest waits."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, parsed as far as possible without its spec.

    since_ns: monotonic time of arrival.  topic, document: None where they cannot be parsed, for
    `reason`.  set_aside: its id in the ledger if it was set aside before, else None.
    """

    message: Message
    since_ns: int
    topic: StreamTopic | None = None
    document: codec.Document | None = None
    reason: str = ""
    set_aside: int | None = None

    @property
    def is_spec(self) -> bool:
        """Whether it carries a spec, which is not parsed yet."""
        is_about_spec = self.topic is not None and self.topic.verb is namespace.Verb.SPEC
        return is_about_spec and bool(self.message.payload)

    @property
    def life(self) -> StreamEpoch | None:
        """The epoch that the message belongs to; None if it could not be parsed."""
        if self.topic is None or self.document is None:
            return None
        return StreamEpoch(self.topic.space, self.topic.address, self.document.epoch or "")

    @property
    def samples_of(self) -> str | None:
        """The organisation whose samples the message carries; None if it carries none."""
        return (
            None if self.topic is None or self.document is None else self.topic.address.organisation
        )

    @property
    def spec_key(self) -> SpecKey | None:
        """The key of the spec that the message was encoded with; None if it carries no samples."""
        if self.topic is None or self.document is None:
            return None
        return self.topic.space, self.topic.address, self.document.spec_version


def read(message: Message, since_ns: int, *, set_aside: int | None = None) -> ReceivedMessage:
    """Parse a message of samples; of a spec only the topic."""
    try:
        topic = namespace.parse(message.topic)
    except Invalid as exc:
        return ReceivedMessage(message, since_ns, reason=str(exc), set_aside=set_aside)
    if not isinstance(topic, StreamTopic):
        reason = f"the recorder takes nothing of {message.topic[:80]}"
        return ReceivedMessage(message, since_ns, reason=reason, set_aside=set_aside)
    if topic.verb is namespace.Verb.SPEC:
        return ReceivedMessage(message, since_ns, topic)
    try:
        document = codec.parse(message.payload)
    except Corrupt as exc:
        return ReceivedMessage(message, since_ns, topic, reason=str(exc), set_aside=set_aside)
    return ReceivedMessage(message, since_ns, topic, document, set_aside=set_aside)


class BlockOrigin(NamedTuple):
    """The messages that a block was decoded from.

    messages: with the size of each, in the order of its samples; size: number of time stamps of its
    document within the block.
    """

    life: StreamEpoch
    messages: tuple[tuple[ReceivedMessage, int], ...]


class DocumentBlock(NamedTuple):
    """The part of a block that comes from one message."""

    life: StreamEpoch
    message: ReceivedMessage
    block: Block


@dataclass(frozen=True, slots=True)
class FlushTime:
    """The time of a flush.

    now_ns: wall time.  steady_ns: what that would be if nobody had set the clock since the start.
    monotonic_ns: for durations.
    """

    now_ns: int
    steady_ns: int
    monotonic_ns: int


@dataclass(slots=True)
class Flush:
    """Everything that one flush stores, acknowledges and keeps waiting."""

    time: FlushTime
    generation: int = 0
    """Of what the recorder knows of its ledger: each repair begins a new one."""
    blocks: list[Block] = field(default_factory=list)
    origins: list[BlockOrigin] = field(default_factory=list)
    """The origin of each block, in the order of `blocks`."""
    doubtful: dict[BatchNumber, MayRepeat] = field(default_factory=dict)
    """The batches whose time stamps may be taken, until they are placed; each is one block."""
    seqs: dict[StreamEpoch, set[int]] = field(default_factory=lambda: defaultdict(set))
    entries: FlushEntries = field(default_factory=FlushEntries)
    lost: list[tuple[StreamSpec, StatedGap]] = field(default_factory=list)
    """Gaps that are cut around what is stored before they go into `entries`, with their specs."""
    mark_requests: set[StreamEpoch] = field(default_factory=set)
    """Lives of which a held batch was sent again, whose publishers need a mark."""
    done: list[Message] = field(default_factory=list)
    waiting: list[ReceivedMessage] = field(default_factory=list)
    waiting_bytes: int = 0
    set_aside_bytes: Counter[str] = field(default_factory=Counter)
    """Of each organisation, with what the ledger holds already."""
    batches: int = 0
    repeated: int = 0
    withheld: int = 0

    def ends_ns(self) -> dict[StreamEpoch, dict[int, int]]:
        """The time stamp of the last sample of each batch, by life and number.

        None is later than the flush: a stamp from the future would hide what is missing.
        """
        ends: dict[StreamEpoch, dict[int, int]] = defaultdict(dict)
        for block, (life, documents) in zip(self.blocks, self.origins, strict=True):
            for frame in block.frames:
                for seq, end_ns in _ends_of(frame.time_ns, documents):
                    ends[life][seq] = min(end_ns, self.time.now_ns)
        return ends

    def samples(self) -> int:
        """Number of samples to be stored."""
        return sum(map(len, self.blocks))

    def dead_letter(self, message: ReceivedMessage, reason: str) -> None:
        """Add a whole message as a dead letter."""
        space, stream = _space_and_stream(message.message.topic)
        document = message.document
        self.entries.dead_letters.append(
            DeadLetter(
                space=space,
                stream=stream,
                reason=reason,
                epoch=document.epoch if document else None,
                seq=document.seq if document else None,
                payload=message.message.payload,
                received_ns=self.time.now_ns,
            )
        )

    def organisations(self) -> set[str]:
        """The organisations whose samples are to be stored."""
        return {block.spec.address.organisation for block in self.blocks}

    def withhold(self, message: ReceivedMessage, reason: str) -> None:
        """Leave out a message that is not taken for now.

        A numbered batch will be sent again; one without a number becomes a dead letter; one that
        was set aside stays set aside.
        """
        if message.set_aside is not None:
            return
        if message.document is None or message.document.seq is None or not message.document.epoch:
            self.dead_letter(
                message, f"the recorder does not take it for now, and it has no number: {reason}"
            )
        self.withheld += 1
        self.done.append(message.message)

    def split_by_document(self, at: int) -> list[DocumentBlock]:
        """Split a block into the parts of its documents.  at: index in `blocks`."""
        block, (life, sizes) = self.blocks[at], self.origins[at]
        if len(sizes) == 1:
            return [DocumentBlock(life, sizes[0][0], block)]
        (frame,) = block.frames
        ends = accumulate(size for _, size in sizes)
        frames = [
            bulk_decode.select(frame, slice(end - size, end))
            for (_, size), end in zip(sizes, ends, strict=True)
        ]
        return [
            DocumentBlock(life, message, Block(block.space, block.spec, (document_frame,)))
            for (message, _), document_frame in zip(sizes, frames, strict=True)
        ]

    def dead_letter_part(self, part: DocumentBlock, reason: str) -> None:
        """Add each sample of a part as a dead letter."""
        life, message, block = part
        document = message.document
        self.entries.dead_letters += [
            DeadLetter(
                space=life.space,
                stream=str(life.stream),
                reason=reason,
                epoch=life.epoch or None,
                seq=document.seq if document else None,
                signal=name,
                time_ns=time_ns,
                value=repr(value)[:200],
                received_ns=self.time.now_ns,
            )
            for name, series in block.series()
            for time_ns, value in zip(series.time_ns.tolist(), series.values.tolist(), strict=True)
        ]


def _ends_of(
    time_ns: Times, documents: Sequence[tuple[ReceivedMessage, int]]
) -> Iterator[tuple[int, int]]:
    """(seq, last time stamp) of the numbered documents of one frame.

    documents: (message, number of time stamps), in the order of the frame; the size of a single
    one does not matter.
    """
    sizes = [len(time_ns)] if len(documents) == 1 else [size for _, size in documents]
    last = np.cumsum(sizes) - 1
    for (message, _), size, end_ns in zip(documents, sizes, time_ns[last].tolist(), strict=True):
        document = message.document
        if document is not None and document.seq is not None and size:
            yield document.seq, end_ns


def _space_and_stream(topic: str) -> tuple[str, str]:
    """Space and stream of a topic, empty where it has too few levels."""
    levels = topic.split("/")
    return (levels[1] if len(levels) > 1 else "", "/".join(levels[3:6]))


def portion(
    candidates: Sequence[ReceivedMessage],
) -> tuple[list[ReceivedMessage], list[ReceivedMessage]]:
    """The messages of one flush, and the specs beyond `MOST_SPECS`, which are for the next."""
    taken: list[ReceivedMessage] = []
    postponed: list[ReceivedMessage] = []
    specs = 0
    for message in candidates:
        specs += message.is_spec
        (postponed if message.is_spec and specs > MOST_SPECS else taken).append(message)
    return taken, postponed
