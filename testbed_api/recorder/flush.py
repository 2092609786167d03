"""What one flush is made of: the messages that came, and what is to be stored of them.  Pure."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from broker import codec, namespace
from broker.bus.inbox import Message
from broker.errors import Corrupt, Invalid
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic
from testbed_api.recorder import bulk_decode
from testbed_api.recorder.ledger import DeadLetter, Entries, Life
from testbed_api.stores.port import Block

SpecKey = tuple[str, StreamAddress, int]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message, read as far as it can be without its spec.

    since_ns: when it came.  topic, document: None where they cannot be read, for `reason`.
    set_aside: its id in the ledger where it was set aside before, else None.
    """

    message: Message
    since_ns: int
    topic: StreamTopic | None = None
    document: codec.Document | None = None
    reason: str = ""
    set_aside: int | None = None

    @property
    def life(self) -> Life | None:
        """The epoch that it belongs to."""
        if self.topic is None or self.document is None:
            return None
        return Life(self.topic.space, self.topic.address, self.document.epoch or "")

    @property
    def samples_of(self) -> str | None:
        """The organisation whose samples it carries, None where it carries none."""
        return (
            None if self.topic is None or self.document is None else self.topic.address.organisation
        )

    @property
    def spec_key(self) -> SpecKey | None:
        """The spec that it was written with."""
        if self.topic is None or self.document is None:
            return None
        return self.topic.space, self.topic.address, self.document.spec_version


def read(message: Message, since_ns: int, *, set_aside: int | None = None) -> Arrived:
    """Read a message of samples, or of a spec, whose payload is left as it is."""
    try:
        topic = namespace.parse(message.topic)
    except Invalid as exc:
        return Arrived(message, since_ns, reason=str(exc), set_aside=set_aside)
    if not isinstance(topic, StreamTopic):
        reason = f"the recorder takes nothing of {message.topic[:80]}"
        return Arrived(message, since_ns, reason=reason, set_aside=set_aside)
    if topic.verb is namespace.Verb.SPEC:
        return Arrived(message, since_ns, topic)
    try:
        document = codec.parse(message.payload)
    except Corrupt as exc:
        return Arrived(message, since_ns, topic, reason=str(exc), set_aside=set_aside)
    return Arrived(message, since_ns, topic, document, set_aside=set_aside)


class Origin(NamedTuple):
    """Whose samples a block has.

    documents: (seq, size) of each that was read into it, in the order of its samples; size: how
    many it has along the time stamps, where the block is of several.
    """

    life: Life
    documents: tuple[tuple[int | None, int], ...]


class Part(NamedTuple):
    """Samples that are of one document."""

    life: Life
    seq: int | None
    block: Block


@dataclass(slots=True)
class Flush:
    """What one flush is made of, until it is stored."""

    now_ns: int
    blocks: list[Block] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    """Whose block it is, beside `blocks`."""
    seqs: dict[Life, set[int]] = field(default_factory=lambda: defaultdict(set))
    entries: Entries = field(default_factory=Entries)
    asked: set[tuple[str, EquipmentAddress]] = field(default_factory=set)
    """Publishers that sent again what is held: they want to be told so."""
    done: list[Message] = field(default_factory=list)
    waiting: list[Arrived] = field(default_factory=list)
    batches: int = 0
    repeated: int = 0
    withheld: int = 0

    def samples(self) -> int:
        """How many go into the store."""
        return sum(map(len, self.blocks))

    def bury(self, one: Arrived, reason: str) -> None:
        """Make a dead letter of a whole message."""
        space, stream = _whose(one.message.topic)
        document = one.document
        self.entries.dead_letters.append(
            DeadLetter(
                space=space,
                stream=stream,
                reason=reason,
                epoch=document.epoch if document else None,
                seq=document.seq if document else None,
                payload=one.message.payload,
                received_ns=self.now_ns,
            )
        )

    def organisations(self) -> set[str]:
        """Whose samples go into the store."""
        return {block.spec.address.organisation for block in self.blocks}

    def withhold(self, one: Arrived, reason: str) -> None:
        """The store takes nothing of its organisation: what is numbered will be sent again.

        What nobody will send again becomes a dead letter; what was set aside stays so.
        """
        if one.set_aside is not None:
            return
        if one.document is None or one.document.seq is None or not one.document.epoch:
            self.bury(one, f"the store takes nothing of its organisation: {reason}")
        self.withheld += 1
        self.done.append(one.message)

    def apart(self, at: int) -> list[Part]:
        """A block document by document."""
        block, (life, sizes) = self.blocks[at], self.origins[at]
        if len(sizes) == 1:
            return [Part(life, sizes[0][0], block)]
        (frame,) = block.frames
        ends = accumulate(size for _, size in sizes)
        frames = [
            bulk_decode.piece(frame, end - size, size)
            for (_, size), end in zip(sizes, ends, strict=True)
        ]
        return [
            Part(life, seq, Block(block.space, block.spec, (one,)))
            for (seq, _), one in zip(sizes, frames, strict=True)
        ]

    def bury_part(self, refused: Part, reason: str) -> None:
        """The store will never take these samples: each becomes a dead letter."""
        life, seq, block = refused
        self.entries.dead_letters += [
            DeadLetter(
                space=life.space,
                stream=str(life.stream),
                reason=f"the store refused it: {reason}",
                epoch=life.epoch or None,
                seq=seq,
                signal=name,
                time_ns=time_ns,
                value=repr(value)[:200],
                received_ns=self.now_ns,
            )
            for name, series in block.series()
            for time_ns, value in zip(series.time_ns.tolist(), series.values.tolist(), strict=True)
        ]


def _whose(topic: str) -> tuple[str, str]:
    """Space and stream of a topic, as far as it has them."""
    levels = topic.split("/")
    return (levels[1] if len(levels) > 1 else "", "/".join(levels[3:6]))
