"""What becomes of messages: samples to be stored, gaps, dead letters, or a longer wait.  Pure.

What a message needs to be understood (its spec, the kind of its equipment, what is held already)
must be known before; what is not known yet makes it wait.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker import codec, namespace
from broker.batch import Batch, Kind, source_of
from broker.errors import Corrupt, Invalid
from broker.inbox import Message
from broker.messages import Held
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic
from broker.streams import StreamSpec
from testbed_api.ledger import DeadLetter, Entries, Life, SetAside
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


@dataclass(frozen=True, slots=True)
class Known:
    """What is known so far."""

    specs: Mapping[SpecKey, StreamSpec]
    kinds: Mapping[EquipmentAddress, Kind]
    held: Mapping[Life, Held]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and how many, messages may wait for their spec."""

    wait_ns: int
    most: int


@dataclass(slots=True)
class Flush:
    """What one flush is made of, until it is stored."""

    now_ns: int
    blocks: list[Block] = field(default_factory=list)
    origins: list[tuple[Life, int | None]] = field(default_factory=list)
    """Whose block it is, beside `blocks`."""
    seqs: dict[Life, set[int]] = field(default_factory=lambda: defaultdict(set))
    entries: Entries = field(default_factory=Entries)
    asked: set[tuple[str, EquipmentAddress]] = field(default_factory=set)
    """Publishers that sent again what is held: they want to be told so."""
    done: list[Message] = field(default_factory=list)
    waiting: list[Arrived] = field(default_factory=list)
    batches: int = 0
    repeated: int = 0

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

    def bury_block(self, at: int, part: Block, reason: str) -> None:
        """The store will never take these samples: each becomes a dead letter."""
        life, seq = self.origins[at]
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
            for name, series in part.series()
            for time_ns, value in zip(series.time_ns.tolist(), series.values.tolist(), strict=True)
        ]


def sift(candidates: Iterable[Arrived], known: Known, *, now_ns: int, patience: Patience) -> Flush:
    """Turn messages into what is to be stored; what lacks its spec or its equipment waits on."""
    flush = Flush(now_ns)
    for one in candidates:
        if one.topic is not None and one.topic.verb is namespace.Verb.SPEC:
            flush.done.append(one.message)  # it was kept before, or buried
        elif one.document is None:
            flush.bury(one, one.reason)
            _end(flush, one)
        elif _is_repeated(flush, one, known):
            flush.repeated += 1
            flush.asked.add((one.topic.space, one.topic.address.owner))  # type: ignore[union-attr]  # a document has a topic
            _end(flush, one)
        elif _take(flush, one, known):
            _end(flush, one)
        elif one.set_aside is None:
            _wait(flush, one, patience)
    return flush


def _end(flush: Flush, one: Arrived) -> None:
    """It is dealt with."""
    if one.set_aside is None:
        flush.done.append(one.message)
    else:
        flush.entries.taken_up.append(one.set_aside)


def _wait(flush: Flush, one: Arrived, patience: Patience) -> None:
    """Wait on unacknowledged, or be set aside whole."""
    if flush.now_ns - one.since_ns < patience.wait_ns and len(flush.waiting) < patience.most:
        flush.waiting.append(one)
        return
    kept = SetAside(one.message.topic, one.message.payload, flush.now_ns)
    flush.entries.set_aside.append(kept)
    _count_in(flush, one)
    flush.done.append(one.message)


def _is_repeated(flush: Flush, one: Arrived, known: Known) -> bool:
    """Whether it is held already; what was set aside is counted as held and not stored yet."""
    life = one.life
    if (
        one.document is None
        or one.document.seq is None
        or life is None
        or one.set_aside is not None
    ):
        return False
    held = known.held.get(life, Held(0))
    return one.document.seq in flush.seqs.get(life, ()) or one.document.seq in held


def _take(flush: Flush, one: Arrived, known: Known) -> bool:
    """Add one message of samples; False where its spec or equipment is not known."""
    document, topic, life, key = one.document, one.topic, one.life, one.spec_key
    if document is None or topic is None or life is None or key is None:
        return False
    spec, kind = known.specs.get(key), known.kinds.get(topic.address.owner)
    if spec is None or kind is None:
        return False
    try:
        _accept(flush, life, kind, document, spec)
    except Corrupt as exc:
        flush.bury(one, str(exc))
    _count_in(flush, one)
    return True


def _accept(
    flush: Flush, life: Life, kind: Kind, document: codec.Document, spec: StreamSpec
) -> None:
    expected = source_of(kind, life.space)
    if document.source != expected:
        raise Corrupt(
            f"source {document.source} from a {kind} equipment in space {life.space}",
            hint=f"it must say {expected}",
        )
    batch, misfits = codec.fit(document, spec)
    _add(flush, life, spec, batch)
    flush.entries.dead_letters += _letters(flush, life, batch, misfits)


def _add(flush: Flush, life: Life, spec: StreamSpec, batch: Batch) -> None:
    if batch.frames:
        flush.blocks.append(Block(life.space, spec, batch.frames))
        flush.origins.append((life, batch.seq))
    flush.entries.gaps += [(life, batch.seq, gap) for gap in batch.gaps]
    flush.batches += 1


def _letters(
    flush: Flush, life: Life, batch: Batch, misfits: Sequence[codec.Misfit]
) -> list[DeadLetter]:
    return [
        DeadLetter(
            space=life.space,
            stream=str(life.stream),
            reason=misfit.reason,
            epoch=batch.epoch,
            seq=batch.seq,
            signal=misfit.signal,
            time_ns=misfit.time_ns,
            value=misfit.value,
            received_ns=flush.now_ns,
        )
        for misfit in misfits
    ]


def _count_in(flush: Flush, one: Arrived) -> None:
    life, document = one.life, one.document
    if life is not None and document is not None and document.epoch and document.seq is not None:
        flush.seqs[life].add(document.seq)


def _whose(topic: str) -> tuple[str, str]:
    """Space and stream of a topic, as far as it has them."""
    levels = topic.split("/")
    return (levels[1] if len(levels) > 1 else "", "/".join(levels[3:6]))
