"""MQTT packets: what is written is read, however it is cut, and nothing breaks the reader."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bus import mqtt_packets
from broker.errors import Corrupt

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MIDS = st.integers(1, 65_535)
published = st.builds(
    lambda topic, payload, mid, retain: (
        mqtt_packets.publish_head(topic, mid, len(payload), retain=retain) + payload,
        mqtt_packets.Published(topic, payload, 1, mid, retain, duplicate=False),
    ),
    TEXT,
    st.binary(max_size=400),
    MIDS,
    st.booleans(),
)
acknowledged = MIDS.map(lambda mid: (mqtt_packets.puback(mid), mqtt_packets.Acknowledged(mid)))
ponged = st.just((b"\xd0\x00", mqtt_packets.Ponged()))
packets = st.lists(published | acknowledged | ponged, max_size=8)


def read(reader: mqtt_packets.Reader) -> list[mqtt_packets.Packet]:
    packets = []
    while (packet := reader.next()) is not None:
        packets.append(packet)
    return packets


@given(packets, st.lists(st.integers(0, 4_000), max_size=10))
def test_a_stream_reads_the_same_however_it_is_cut(written, cuts) -> None:
    stream = b"".join(data for data, _ in written)
    reader, read_packets, begin = mqtt_packets.Reader(), [], 0
    for end in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        reader.feed(stream[begin:end])
        read_packets += read(reader)
        begin = end
    assert read_packets == [packet for _, packet in written]


@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_corrupt(noise) -> None:
    reader = mqtt_packets.Reader()
    reader.feed(noise)
    with suppress(Corrupt):
        read(reader)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 300_000])
def test_every_length_is_written_as_the_standard_says(size) -> None:
    reader = mqtt_packets.Reader()
    reader.feed(mqtt_packets.publish_head("t", 7, size, retain=False) + bytes(size))
    assert read(reader) == [
        mqtt_packets.Published("t", bytes(size), 1, 7, retained=False, duplicate=False)
    ]


def test_a_connect_holds_what_the_standard_asks_for() -> None:
    packet = mqtt_packets.connect("id", "ada", "secret", keepalive_s=10, clean=True)
    assert packet == b"\x10\x1b\x00\x04MQTT\x04\xc2\x00\x0a\x00\x02id\x00\x03ada\x00\x06secret"


def test_a_packet_that_claims_to_be_endless_is_corrupt() -> None:
    reader = mqtt_packets.Reader()
    reader.feed(b"\x30\xff\xff\xff\xff\x01")
    with pytest.raises(Corrupt, match="no end"):
        reader.next()
