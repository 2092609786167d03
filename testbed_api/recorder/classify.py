"""What becomes of messages: samples to be stored, gaps, dead letters, or a longer wait.  Pure.

What a message needs to be understood (its spec, the kind of its equipment, what is held already)
must be known before; what is not known yet makes it wait.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker import codec, namespace
from broker.batch import Batch, EquipmentKind, source_of
from broker.errors import Corrupt
from broker.messages import Held
from broker.namespace import EquipmentAddress, StreamTopic
from broker.streams import StreamSpec
from testbed_api.recorder import bulk_decode
from testbed_api.recorder.flush import Arrived, Flush, Origin, SpecKey
from testbed_api.recorder.ledger import DeadLetter, Life, SetAside
from testbed_api.stores.port import Block


@dataclass(frozen=True, slots=True)
class Known:
    """What is known so far."""

    specs: Mapping[SpecKey, StreamSpec]
    kinds: Mapping[EquipmentAddress, EquipmentKind]
    held: Mapping[Life, Held]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and how many, messages may wait for their spec."""

    wait_ns: int
    most: int


@dataclass(frozen=True, slots=True)
class _Way:
    """What is known of the messages of one topic, epoch and spec, and what is taken of them.

    source: what each of them must say.  seqs: the sequence numbers that this flush deals with.
    """

    life: Life
    spec: StreamSpec | None
    kind: EquipmentKind | None
    held: Held
    seqs: set[int]
    taken: list[tuple[Arrived, codec.Document]] = field(default_factory=list)


def sift(candidates: Iterable[Arrived], known: Known, *, now_ns: int, patience: Patience) -> Flush:
    """Turn messages into what is to be stored; what lacks its spec or its equipment waits on."""
    flush = Flush(now_ns)
    ways: dict[tuple[str, str | None, int], _Way] = {}
    for one in candidates:
        topic, document = one.topic, one.document
        if topic is not None and topic.verb is namespace.Verb.SPEC:
            flush.done.append(one.message)  # it was kept before, or buried
        elif topic is None or document is None:
            flush.bury(one, one.reason)
            _end(flush, one)
        else:
            key = (one.message.topic, document.epoch, document.spec_version)
            way = ways.get(key)
            if way is None:
                way = ways[key] = _way(flush, topic, document, known)
            _sift_one(flush, way, one, document, patience)
    _read(flush, ways.values())
    flush.seqs = {life: seqs for life, seqs in flush.seqs.items() if seqs}
    return flush


def _way(flush: Flush, topic: StreamTopic, document: codec.Document, known: Known) -> _Way:
    life = Life(topic.space, topic.address, document.epoch or "")
    return _Way(
        life=life,
        spec=known.specs.get((topic.space, topic.address, document.spec_version)),
        kind=known.kinds.get(topic.address.owner),
        held=known.held.get(life, Held(0)),
        seqs=flush.seqs[life],
    )


def _sift_one(
    flush: Flush, way: _Way, one: Arrived, document: codec.Document, patience: Patience
) -> None:
    """Take a message, let it wait, or pass over what is held already.

    What was set aside is counted as held and not stored yet.
    """
    seq = document.seq
    if seq is not None and one.set_aside is None and (seq in way.seqs or seq in way.held):
        flush.repeated += 1
        flush.asked.add((way.life.space, way.life.stream.owner))
    elif way.spec is None or way.kind is None:
        if one.set_aside is not None or _waits(flush, one, patience):
            return
        kept = SetAside(one.message.topic, one.message.payload, flush.now_ns)
        flush.entries.set_aside.append(kept)
        _count_in(way, document)
    else:
        _take(flush, way, one, document)
        _count_in(way, document)
    _end(flush, one)


def _take(flush: Flush, way: _Way, one: Arrived, document: codec.Document) -> None:
    """Take what says rightly where it comes from."""
    assert way.kind is not None  # noqa: S101 - for the types: it was looked at
    expected = source_of(way.kind, way.life.space)
    if document.source == expected:
        way.taken.append((one, document))
        return
    wrong = Corrupt(
        f"source {document.source} from a {way.kind} equipment in space {way.life.space}",
        hint=f"it must say {expected}",
    )
    flush.bury(one, str(wrong))


def _end(flush: Flush, one: Arrived) -> None:
    """It is dealt with."""
    if one.set_aside is None:
        flush.done.append(one.message)
    else:
        flush.entries.taken_up.append(one.set_aside)


def _waits(flush: Flush, one: Arrived, patience: Patience) -> bool:
    """Let it wait on unacknowledged; False where it has waited long enough, or too many do."""
    waits = flush.now_ns - one.since_ns < patience.wait_ns and len(flush.waiting) < patience.most
    if waits:
        flush.waiting.append(one)
    return waits


def _read(flush: Flush, ways: Iterable[_Way]) -> None:
    """Read what was taken: together what is plain, the rest one by one."""
    groups = [
        (way, bulk_decode.Group(way.spec, [document for _, document in way.taken]))
        for way in ways
        if way.spec is not None and way.taken
    ]
    every = bulk_decode.join([group for _, group in groups])
    for (way, group), joined in zip(groups, every, strict=True):
        for frame, pieces in joined.frames:
            documents = [group.documents[one.at] for one in pieces]
            sizes = [(one.seq, size) for one, (_, size) in zip(documents, pieces, strict=True)]
            flush.blocks.append(Block(way.life.space, group.spec, (frame,)))
            flush.origins.append(Origin(way.life, tuple(sizes)))
            flush.batches += len(documents)
            _add_gaps(flush, way.life, documents)
        for at in joined.apart:
            try:
                _read_apart(flush, way.life, group.documents[at], group.spec)
            except Corrupt as exc:
                flush.bury(way.taken[at][0], str(exc))


def _read_apart(flush: Flush, life: Life, document: codec.Document, spec: StreamSpec) -> None:
    batch, misfits = codec.fit(document, spec)
    if batch.frames:
        flush.blocks.append(Block(life.space, spec, batch.frames))
        flush.origins.append(Origin(life, ((batch.seq, len(batch)),)))
    flush.batches += 1
    _add_gaps(flush, life, [document])
    flush.entries.dead_letters += _letters(flush, life, batch, misfits)


def _add_gaps(flush: Flush, life: Life, documents: Iterable[codec.Document]) -> None:
    flush.entries.gaps += [(life, one.seq, gap) for one in documents for gap in one.gaps]


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


def _count_in(way: _Way, document: codec.Document) -> None:
    if document.epoch and document.seq is not None:
        way.seqs.add(document.seq)
