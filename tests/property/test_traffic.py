"""Counts of a relay: the same however its bytes are cut, and nothing that comes breaks them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import codec
from broker.batch import Batch, Source
from broker.bus import mqtt_packets
from broker.clock import NS_PER_S, SteppedClock
from broker.namespace import StreamAddress
from testbed_runner.doors import traffic_of
from testbed_runner.port import Traffic
from testbed_runner.traffic import HttpWatch, MqttWatch, TrafficCounter, Watch

START_NS = 1_800_000_000 * NS_PER_S
AGE_S = 0.25
CONNECT = mqtt_packets.connect("ada", "ada", "secret", keepalive_s=10, clean=True)
LET_IN, KEPT_OUT = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"
LET_IN_5 = b"\x20\x06\x00\x00\x03\x21\x00\x0a"
ADDRESS = StreamAddress("factory", "pump-rig", "rig")
OLD = codec.encode(Batch(1, (), Source.LIVE, START_NS - round(AGE_S * NS_PER_S)))
VERBS = ("data", "late", "spec", "health", "mark", "anchor")


def published(topic: str, payload: bytes) -> bytes:
    return mqtt_packets.publish_head(topic, 7, len(payload), retain=False) + payload


def topic_of(verb: str, space: str = "live") -> str:
    return f"tb1/{space}/{verb}/{ADDRESS}"


batches = st.tuples(
    st.sampled_from(["live", "run-7", "run-" + 40 * "x"]).flatmap(
        lambda space: st.sampled_from(VERBS).map(lambda verb: topic_of(verb, space))
    ),
    st.just(OLD) | st.binary(max_size=300),
)
others = st.sampled_from(
    [b"\xd0\x00", mqtt_packets.puback(9), b"\xe0\x00", b"\x90\x03\x00\x01\x00"]
)
foreign = st.text(st.characters(exclude_categories=["Cs"]), max_size=90).map(
    lambda topic: (topic, b"x") if topic else ("a", b"")
)
packets = st.lists(batches | foreign | others, max_size=8)
cuts = st.lists(st.integers(0, 3_000), max_size=12)


def stream_of(first: bytes, following: list) -> bytes:
    return first + b"".join(
        each if isinstance(each, bytes) else published(*each) for each in following
    )


def batch_count(following: list) -> int:
    topics = [each[0] for each in following if isinstance(each, tuple)]
    return sum(
        topic.startswith("tb1/") and topic.split("/")[2:3] in (["data"], ["late"])
        for topic in topics
        if topic.count("/") >= 3
    )


def counted(kind: type[Watch], sent: bytes, answered: bytes, cut_at: list[int]) -> Traffic:
    """What a counter says of one connection, whose bytes come in these parts."""
    clock = SteppedClock(START_NS)
    counter = TrafficCounter(clock)
    watch = kind(counter)
    for feed, stream in ((watch.sent, sent), (watch.answered, answered)):
        begin = 0
        for end in [*sorted(min(cut, len(stream)) for cut in cut_at), len(stream)]:
            feed(stream[begin:end])
            begin = end
    return traffic_of(counter)


@given(packets, packets, cuts)
def test_batches_are_counted_the_same_however_the_bytes_are_cut(sent, answered, cut_at) -> None:
    out, back = stream_of(CONNECT, sent), stream_of(LET_IN, answered)
    traffic = counted(MqttWatch, out, back, cut_at)
    assert traffic == counted(MqttWatch, out, back, [])
    assert (traffic.messages_out, traffic.messages_in) == (batch_count(sent), batch_count(answered))
    assert (traffic.bytes_out, traffic.bytes_in) == (len(out), len(back))
    assert traffic.is_let_in
    assert (traffic.last_out_ns is None) == (not traffic.messages_out)


@given(
    st.binary(max_size=300), st.binary(max_size=300), cuts, st.sampled_from([MqttWatch, HttpWatch])
)
def test_no_bytes_break_the_counting_of_bytes(sent, answered, cut_at, kind) -> None:
    traffic = counted(kind, sent, answered, cut_at)
    assert (traffic.bytes_out, traffic.bytes_in) == (len(sent), len(answered))


@given(st.binary(max_size=300), cuts)
def test_what_follows_malformed_bytes_is_counted_no_more(noise, cut_at) -> None:
    five_bytes_of_length = b"\xff\xff\xff\xff\xff"
    back = LET_IN + published(topic_of("data"), OLD) + b"\x30" + five_bytes_of_length + noise
    assert counted(MqttWatch, CONNECT, back, cut_at).messages_in == 1


@pytest.mark.parametrize(
    ("answer", "is_let_in"),
    [(LET_IN, True), (LET_IN_5, True), (KEPT_OUT, False), (b"\x20\x00", False), (b"", False)],
)
def test_a_program_is_in_once_the_broker_says_so(answer, is_let_in) -> None:
    assert counted(MqttWatch, CONNECT, answer, [1, 2, 3]).is_let_in is is_let_in


def test_a_program_lets_nobody_in() -> None:
    assert not counted(MqttWatch, CONNECT + LET_IN, b"", []).is_let_in


@pytest.mark.parametrize("cut_at", [[], [1], [40], [90, 91]])
def test_the_age_of_a_batch_is_measured_by_what_it_says(cut_at) -> None:
    back = LET_IN + published(topic_of("mark"), b"{}") + published(topic_of("data"), OLD)
    assert counted(MqttWatch, CONNECT, back, cut_at).lag_s == pytest.approx(AGE_S)
    assert counted(MqttWatch, CONNECT + published(topic_of("data"), OLD), LET_IN, []).lag_s is None


async def test_the_age_is_measured_about_once_a_second() -> None:
    clock = SteppedClock(START_NS)
    counter = TrafficCounter(clock)
    watch = MqttWatch(counter)
    watch.answered(LET_IN)
    lags = []
    for _ in range(5):
        watch.answered(published(topic_of("data"), OLD))
        lags.append(counter.lag_s)
        await clock.advance(0.4)
    assert lags == pytest.approx([0.25, 0.25, 0.25, 1.45, 1.45])


async def test_the_last_batch_of_a_program_has_its_moment() -> None:
    clock = SteppedClock(START_NS)
    counter = TrafficCounter(clock)
    watch = MqttWatch(counter)
    watch.sent(CONNECT)
    await clock.advance(3)
    watch.sent(published(topic_of("data"), OLD))
    await clock.advance(3)
    watch.sent(published(topic_of("health"), b"{}"))
    assert counter.last_out_ns == 3 * NS_PER_S


def test_an_alias_of_mqtt_5_counts_as_a_batch() -> None:
    assert counted(MqttWatch, CONNECT + published("", b"\x03\x23\x00\x01{}"), b"", []).messages_out


REQUEST = b"GET /streams HTTP/1.1\r\nHost: 127.0.0.1:8600\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "is_let_in"),
    [(b"200 OK", True), (b"204 No Content", True), (b"401 Unauthorized", False), (b"503 x", False)],
)
@given(cut_at=cuts)
def test_a_program_is_in_once_the_api_has_answered(status, is_let_in, cut_at) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    assert counted(HttpWatch, REQUEST, answer, cut_at).is_let_in is is_let_in


def test_the_second_answer_of_a_connection_counts_and_no_body_does() -> None:
    counter = TrafficCounter(SteppedClock(START_NS))
    watch = HttpWatch(counter)
    watch.sent(REQUEST)
    watch.answered(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    watch.answered(b"HTTP/1.1 200 OK\r\n\r\n")  # no request went before it
    assert not counter.is_let_in
    watch.sent(REQUEST)
    watch.answered(b"HTTP/1.1 200 OK\r\n\r\n")
    assert counter.is_let_in
