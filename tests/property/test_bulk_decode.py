"""Documents that are read together give exactly what each gives alone."""

from collections import Counter
from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st

from broker import codec
from broker.batch import EquipmentKind
from broker.bus.inbox import Message
from broker.clock import ns_of
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.recorder import bulk_decode, classify
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, FlushTime
from testbed_api.recorder.placement_ledger import Placements
from testbed_api.stores import line_protocol

COUNT = 3
SPECS = [
    StreamSpec(StreamAddress("o", "e", "even"), tuple(Signal(f"s {at}") for at in range(COUNT))),
    StreamSpec(StreamAddress("o", "e", "odd"), tuple(Signal(f"t{at}") for at in range(COUNT))),
    StreamSpec(
        StreamAddress("o", "e", "mixed"),
        (Signal("a"), Signal("b", Dtype.INT64), Signal("c", Dtype.STRING)),
    ),
]
KNOWN = {("live", spec.address, 1): spec for spec in SPECS}
KINDS = {SPECS[0].address.owner: EquipmentKind.SIMULATED}
PATIENCE = WaitLimits(wait_ns=100, most=2, most_bytes=10**6, most_set_aside=10**6)
NOW_NS = ns_of("2026-11-23T12:00:00Z")
TIME = FlushTime(NOW_NS, NOW_NS, monotonic_ns=1)

plain = st.floats(-1e6, 1e6).map(lambda value: value + 0.5)
odd = st.sampled_from([7, 2**63, -(2**70), True, None, "x", [], {}, "INFINITE", -0.0, 5e-324])
cells = st.one_of(plain, plain, plain, plain, odd)
starts = st.sampled_from(
    [
        "2026-11-23T12:00:00.000000000Z",
        "2026-11-23T12:00:00.5+01:00",
        "1677-09-21T00:12:44Z",
        "2262-04-11T23:47:16Z",
        "9999-12-31T23:59:59Z",
        "yesterday",
        7,
    ]
)
start = st.one_of(st.just("2026-11-23T12:00:00.000000000Z"), starts)
offset = st.one_of(
    st.integers(0, 10**9), st.sampled_from([2**62, -(2**62), 2**63, -(2**63), 1.5, True])
)


@st.composite
def long_frames(draw):
    size = draw(st.integers(0, 4))
    index = st.one_of(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1), st.just(COUNT))
    lists = {
        "dt": draw(st.lists(offset, min_size=size, max_size=size)),
        "signal": draw(st.lists(st.one_of(index, odd), min_size=size, max_size=size)),
        "value": draw(st.lists(cells, min_size=size, max_size=size)),
    }
    quality = draw(st.sampled_from([{}, {}, {}, {"quality": ["good"] * size}]))
    return {"t0": draw(start)} | lists | quality


@st.composite
def wide_frames(draw, names):
    size = draw(st.integers(0, 3))
    named = draw(st.sampled_from([names, names, names, names[::-1], names[:-1], (*names, "x")]))
    values = {name: draw(st.lists(cells, min_size=size, max_size=size)) for name in named}
    if values and draw(st.integers(0, 9)) == 0:
        values[named[0]] = draw(st.sampled_from([None, [], [1.5] * (size + 1), "text"]))
    dt = draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size))
    return {"t0": draw(start), "dt": dt, "values": values}


@st.composite
def plain_frames(draw, names):
    size = draw(st.sampled_from([1, 1, 1, 2]))
    dt = draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size))
    second = draw(st.integers(0, 59))
    head = {"t0": f"2026-11-23T12:00:{second:02d}.000000001Z", "dt": dt}
    column = st.lists(plain, min_size=size, max_size=size)
    if draw(st.booleans()):
        return head | {"values": {name: draw(column) for name in names}}
    signal = draw(st.lists(st.integers(0, COUNT - 1), min_size=size, max_size=size))
    return head | {"signal": signal, "value": draw(column)}


@st.composite
def documents(draw):
    """(number of the stream, payload)"""
    number = draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
    frame = st.one_of(
        plain_frames(SPECS[number].names),
        plain_frames(SPECS[number].names),
        plain_frames(SPECS[number].names),
        plain_frames(SPECS[number].names),
        long_frames(),
        wide_frames(SPECS[number].names),
        st.sampled_from([None, {}, {"t0": "2026-11-23T12:00:00Z", "dt": []}]),
    )
    gap = {"signals": [], "from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:01Z"}
    document = {
        "v": 1,
        "spec": 1,
        "epoch": draw(st.sampled_from(["one", "one", "one", "two"])),
        "seq": draw(st.integers(1, 9)),
        "pub": "2026-11-23T12:00:00Z",
        "source": draw(st.sampled_from(["simulated"] * 19 + ["live"])),
        "frames": draw(st.lists(frame, min_size=1, max_size=draw(st.sampled_from([1] * 9 + [2])))),
        "gaps": draw(st.sampled_from([[], [], [gap | {"cause": "test"}]])),
    }
    payload = _dumps(document)
    return number, payload


def _dumps(document: object) -> bytes:
    """As JSON, which knows numbers that no float64 holds."""

    def big(value: object) -> object:
        if isinstance(value, dict):
            return {name: big(each) for name, each in value.items()}
        if isinstance(value, list):
            return [big(each) for each in value]
        if type(value) is int and not -(2**63) <= value < 2**64:
            return orjson.Fragment(str(value))
        return value

    return orjson.dumps(big(document)).replace(b'"INFINITE"', b"1e999")


def parsed(number: int, payload: bytes) -> list[tuple[int, codec.Document]]:
    message = recorder_flush.read(Message(topic(number), payload), 0)
    return [(number, message.document)] if message.document else []


def topic(number: int) -> str:
    return f"tb1/live/data/{SPECS[number].address}"


def flush_of(payloads, held) -> Flush:
    arrived = [recorder_flush.read(Message(topic(number), each), 0) for number, each in payloads]
    known = Lookups(KNOWN, KINDS, held)
    return classify.classify(arrived, known, placements=Placements(), time=TIME, limits=PATIENCE)


def samples(flush: Flush) -> Counter[object]:
    """Every sample with the stream, epoch and seq it is said to be of."""
    counts: Counter[object] = Counter()
    for at in range(len(flush.blocks)):
        for life, message, block in flush.split_by_document(at):
            seq = message.document.seq
            for name, series in block.series():
                dtype = series.values.dtype
                columns = (series.time_ns, series.values, series.quality)
                rows = zip(*(column.tolist() for column in columns), strict=True)
                counts.update(repr((life, seq, name, dtype, row)) for row in rows)
    return counts


def lines(flush: Flush) -> list[bytes]:
    return sorted(line for block in flush.blocks for line in line_protocol.lines(block))


@given(st.lists(documents(), min_size=3, max_size=8))
def test_what_is_read_together_is_what_the_codec_reads_of_each(payloads) -> None:
    read = [each for payload in payloads for each in parsed(*payload)]
    groups = [
        bulk_decode.Group(spec, [document for number, document in read if number == at])
        for at, spec in enumerate(SPECS)
    ]
    for group, joined in zip(groups, bulk_decode.decode(groups), strict=True):
        seen = list(joined.apart)
        for frame, pieces in joined.frames:
            end = 0
            for at, size in pieces:
                start, end = end, end + size
                batch, misfits = codec.fit(group.documents[at], group.spec)
                assert misfits == ()
                assert batch.frames == (bulk_decode.select(frame, slice(start, end)),)
                seen.append(at)
            assert end == len(frame.time_ns)
            assert all(each < other for each, other in pairwise(at for at, _ in pieces))
        assert sorted(seen) == list(range(len(group.documents)))


@given(st.lists(documents(), min_size=3, max_size=8))
def test_a_flush_of_many_is_the_flushes_of_each(payloads) -> None:
    together = flush_of(payloads, {})
    held: dict[recorder_flush.StreamEpoch, Held] = {}
    alone = []
    for payload in payloads:
        alone.append(flush_of([payload], held))
        for life, seqs in alone[-1].seqs.items():
            held[life] = held.get(life, Held(0)).including(seqs)
    assert samples(together) == sum(map(samples, alone), Counter())
    assert lines(together) == sorted(line for each in alone for line in lines(each))
    assert {life: Held(0).including(seqs) for life, seqs in together.seqs.items()} == held
    for count in ("batches", "repeated"):
        assert getattr(together, count) == sum(getattr(each, count) for each in alone)
    for entries in ("gaps", "dead_letters"):
        mine = Counter(map(repr, getattr(together.entries, entries)))
        each = [Counter(map(repr, getattr(each.entries, entries))) for each in alone]
        assert mine == sum(each, Counter())


@given(st.lists(documents(), min_size=3, max_size=8))
def test_lines_made_at_once_are_those_made_one_by_one(payloads) -> None:
    flush = flush_of(payloads, {})
    sent = [line for body in line_protocol.bodies(flush.blocks) for line in body.split(b"\n")]
    assert sorted(sent) == lines(flush)
