"""Classifies messages: samples to be stored, gaps, dead letters, or a longer wait.  Pure.

The lookups that a message needs (its spec, the kind of its equipment, the ranges held already) are
made before; a message whose lookups found nothing yet waits.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from broker import codec, namespace
from broker.batch import Batch, MayRepeat, source_of
from broker.errors import Corrupt
from broker.json_values import Misfit
from broker.messages import Held
from broker.namespace import EquipmentAddress, EquipmentKind, StreamTopic
from broker.streams import StreamSpec
from testbed_api.recorder import bulk_decode, lost_gaps
from testbed_api.recorder.flush import BlockOrigin, Flush, FlushTime, ReceivedMessage
from testbed_api.recorder.ledger import DeadLetter, SetAside, StatedGap, StreamEpoch
from testbed_api.recorder.placement_ledger import BatchNumber, Placements
from testbed_api.recorder.spec_versions import SpecKey
from testbed_api.stores.port import Block


@dataclass(frozen=True, slots=True)
class Lookups:
    """Specs, kinds of equipment and held ranges that were found so far.

    set_aside: bytes of the messages that the ledger holds of each organisation without a spec.
    """

    specs: Mapping[SpecKey, StreamSpec]
    kinds: Mapping[EquipmentAddress, EquipmentKind]
    held: Mapping[StreamEpoch, Held]
    set_aside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """Limits of waiting for a spec: time in ns, messages, and bytes of their payloads.

    most_set_aside: bytes of one organisation that are set aside after that.
    """

    wait_ns: int
    most: int
    most_bytes: int
    most_set_aside: int


@dataclass(frozen=True, slots=True)
class _TopicGroup:
    """The messages of one topic, epoch and spec, with their lookups.

    seqs: the sequence numbers that this flush settles.  accepted: messages to be decoded; doubtful:
    those of which time stamps may be taken.
    """

    life: StreamEpoch
    spec: StreamSpec | None
    kind: EquipmentKind | None
    held: Held
    seqs: set[int]
    placements: Placements
    accepted: list[tuple[ReceivedMessage, codec.Document]] = field(default_factory=list)
    doubtful: list[tuple[ReceivedMessage, codec.Document, MayRepeat]] = field(default_factory=list)


def classify(
    candidates: Iterable[ReceivedMessage],
    lookups: Lookups,
    *,
    placements: Placements,
    time: FlushTime,
    limits: WaitLimits,
) -> Flush:
    """Sort messages into a flush; those without spec or registered equipment wait on."""
    flush = Flush(time)
    flush.set_aside_bytes.update(lookups.set_aside)
    topic_groups: dict[tuple[str, str | None, int], _TopicGroup] = {}
    for message in candidates:
        topic, document = message.topic, message.document
        if topic is not None and topic.verb is namespace.Verb.SPEC:
            flush.done.append(message.message)  # it was stored before, or became a dead letter
        elif topic is None or document is None:
            flush.dead_letter(message, message.reason)
            _finish(flush, message)
        else:
            key = (message.message.topic, document.epoch, document.spec_version)
            topic_group = topic_groups.get(key)
            if topic_group is None:
                topic_group = _topic_group_of(flush, topic, document, lookups, placements)
                topic_groups[key] = topic_group
            _classify_message(flush, topic_group, message, document, limits)
    _read(flush, topic_groups.values())
    flush.seqs = {life: seqs for life, seqs in flush.seqs.items() if seqs}
    return flush


def _topic_group_of(
    flush: Flush,
    topic: StreamTopic,
    document: codec.Document,
    lookups: Lookups,
    placements: Placements,
) -> _TopicGroup:
    life = StreamEpoch(topic.space, topic.address, document.epoch or "")
    return _TopicGroup(
        life=life,
        spec=lookups.specs.get((topic.space, topic.address, document.spec_version)),
        kind=lookups.kinds.get(topic.address.owner),
        held=lookups.held.get(life, Held(0)),
        seqs=flush.seqs[life],
        placements=placements,
    )


def _classify_message(
    flush: Flush,
    topic_group: _TopicGroup,
    message: ReceivedMessage,
    document: codec.Document,
    limits: WaitLimits,
) -> None:
    """Accept one message, let it wait, or skip it because it is held already.

    A message that was set aside counts as held though it is not stored yet; one that finds no room
    there is left to its publisher.
    """
    seq = document.seq
    if (
        seq is not None
        and message.set_aside is None
        and (seq in topic_group.seqs or seq in topic_group.held)
    ):
        flush.repeated += 1
        flush.mark_requests.add(topic_group.life)
    elif topic_group.spec is None or topic_group.kind is None:
        if message.set_aside is not None or _waits(flush, message, limits):
            return
        organisation, size = topic_group.life.stream.organisation, len(message.message.payload)
        if flush.set_aside_bytes[organisation] + size > limits.most_set_aside:
            flush.withhold(message, "too much of its organisation waits for specs")
            return
        flush.set_aside_bytes[organisation] += size
        waiting_message = SetAside(
            message.message.topic, message.message.payload, flush.time.now_ns
        )
        flush.entries.set_aside.append(waiting_message)
        _count_as_held(topic_group, document)
    else:
        _accept(flush, topic_group, message, document)
        _count_as_held(topic_group, document)
    _finish(flush, message)


def _accept(
    flush: Flush, topic_group: _TopicGroup, message: ReceivedMessage, document: codec.Document
) -> None:
    """Accept a document that states the source its equipment and space call for."""
    assert topic_group.kind is not None  # noqa: S101 - for the types: it was looked at
    expected = source_of(topic_group.kind, topic_group.life.space)
    if document.source == expected:
        may_repeat = _may_repeat(topic_group, document)
        if may_repeat is None:
            topic_group.accepted.append((message, document))
        else:
            topic_group.doubtful.append((message, document, may_repeat))
        return
    mismatch = Corrupt(
        f"source {document.source} from a {topic_group.kind} equipment"
        f" in space {topic_group.life.space}",
        hint=f"it must say {expected}",
    )
    flush.dead_letter(message, str(mismatch))


def _may_repeat(topic_group: _TopicGroup, document: codec.Document) -> MayRepeat | None:
    """How a batch may repeat time stamps of stored samples.

    Its publisher states it, who knows what it sent before, but not what was placed meanwhile.
    """
    if not document.epoch or document.seq is None or not document.frames:
        return None
    number = BatchNumber(topic_group.life, document.seq)
    if document.may_repeat is None and topic_group.placements.is_overtaken(number):
        return MayRepeat.TIMES
    return document.may_repeat


def _finish(flush: Flush, message: ReceivedMessage) -> None:
    """Mark a message as settled: acknowledge it, or remove it from those set aside."""
    if message.set_aside is None:
        flush.done.append(message.message)
    else:
        flush.entries.taken_up.append(message.set_aside)


def _waits(flush: Flush, message: ReceivedMessage, limits: WaitLimits) -> bool:
    """Let a message wait unacknowledged; False if it waited too long or too much waits."""
    waited_ns = flush.time.monotonic_ns - message.since_ns
    size = flush.waiting_bytes + len(message.message.payload)
    has_room = len(flush.waiting) < limits.most and size <= limits.most_bytes
    waits = waited_ns < limits.wait_ns and has_room
    if waits:
        flush.waiting.append(message)
        flush.waiting_bytes = size
    return waits


def _read(flush: Flush, topic_groups: Collection[_TopicGroup]) -> None:
    """Decode the accepted messages: plain ones in bulk, the others one by one."""
    groups = [
        (
            topic_group,
            bulk_decode.Group(topic_group.spec, [document for _, document in topic_group.accepted]),
        )
        for topic_group in topic_groups
        if topic_group.spec is not None and topic_group.accepted
    ]
    every = bulk_decode.decode([group for _, group in groups])
    for (topic_group, group), decoded in zip(groups, every, strict=True):
        for frame, pieces in decoded.frames:
            documents = [group.documents[piece.at] for piece in pieces]
            sizes = [(topic_group.accepted[at][0], size) for at, size in pieces]
            flush.blocks.append(Block(topic_group.life.space, group.spec, (frame,)))
            flush.origins.append(BlockOrigin(topic_group.life, tuple(sizes)))
            flush.batches += len(documents)
            _add_gaps(flush, topic_group.life, documents, group.spec)
        for at in decoded.apart:
            try:
                _read_apart(flush, topic_group.life, *topic_group.accepted[at], group.spec)
            except Corrupt as exc:
                flush.dead_letter(topic_group.accepted[at][0], str(exc))
    for topic_group in topic_groups:
        if topic_group.spec is not None:
            _read_doubtful(flush, topic_group, topic_group.spec)


def _read_doubtful(flush: Flush, topic_group: _TopicGroup, spec: StreamSpec) -> None:
    """Decode the messages of which time stamps may be taken, each into a block of its own."""
    for message, document, may_repeat in topic_group.doubtful:
        try:
            _read_apart(flush, topic_group.life, message, document, spec)
        except Corrupt as exc:
            flush.dead_letter(message, str(exc))
        else:
            assert document.seq is not None  # noqa: S101 - for the types: it was looked at
            flush.doubtful[BatchNumber(topic_group.life, document.seq)] = may_repeat


def _read_apart(
    flush: Flush,
    life: StreamEpoch,
    message: ReceivedMessage,
    document: codec.Document,
    spec: StreamSpec,
) -> None:
    batch, misfits = codec.fit(document, spec)
    if batch.frames:
        flush.blocks.append(Block(life.space, spec, batch.frames))
        flush.origins.append(BlockOrigin(life, ((message, len(batch)),)))
    flush.batches += 1
    _add_gaps(flush, life, [document], spec)
    flush.entries.dead_letters += _dead_letters(flush, life, batch, misfits)


def _add_gaps(
    flush: Flush, life: StreamEpoch, documents: Iterable[codec.Document], spec: StreamSpec
) -> None:
    for document in documents:
        for gap in document.gaps:
            stated = StatedGap(life, document.seq, gap)
            if gap.cause == lost_gaps.SPOOL_LOST:
                flush.lost.append((spec, stated))
            else:
                flush.entries.gaps.append(stated)


def _dead_letters(
    flush: Flush, life: StreamEpoch, batch: Batch, misfits: Sequence[Misfit]
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
            received_ns=flush.time.now_ns,
        )
        for misfit in misfits
    ]


def _count_as_held(topic_group: _TopicGroup, document: codec.Document) -> None:
    if document.epoch and document.seq is not None:
        topic_group.seqs.add(document.seq)
