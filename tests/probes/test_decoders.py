"""Whatever bytes come, a decoder reads them or says that they lie; it never breaks or hangs."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import orjson
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary
from asyncua.ua.uaerrors import UaError
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from broker import codec, messages, namespace
from broker.backends.nats import auth_callout
from broker.bus import mqtt_packets
from broker.clock import ns_of
from broker.credential import Credential
from broker.errors import Corrupt, Refused
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from gateway.links.opcua import notification_message
from tests.probes import results

SPEC = StreamSpec(
    StreamAddress("factory", "pump-rig", "rig"),
    tuple(Signal(each, Dtype(each)) for each in ("float64", "int64", "bool", "string")),
)
EXAMPLES = 150
BATCH = (
    b'{"v":1,"spec":1,"epoch":"e","seq":1,"pub":"2026-11-23T12:00:00Z","source":"live","frames":'
    b'[{"t0":"2026-11-23T12:00:00Z","dt":[0,1],"values":{"float64":[1.5,null],"string":["a","b"]},'
    b'"quality":{"float64":["good","bad"]}},{"t0":"2026-11-23T12:00:00Z","dt":[0],"signal":[1],'
    b'"value":["9007199254740993"]}],"gaps":[{"signals":["bool"],"from":"2026-11-23T12:00:00Z",'
    b'"to":"2026-11-23T12:00:01Z","cause":"server-overflow"}]}'
)
STATES = (
    (
        b'{"v":1,"state":"fresh","at":"2026-11-23T12:00:00Z","valid_until":"2026-11-23T12:00:05Z",'
        b'"last":null,"alarms":["a"]}'
    ),
    b'{"v":1,"streams":{"rig":{"e":{"upto":3,"beyond":[[5,7]]}}}}',
    messages.encode_spec(SPEC),
)
CALLOUT = {
    "nats": {
        "connect_opts": {"user": "ada", "pass": "secret"},
        "client_info": {"mqtt_id": "ada", "id": 7},
        "server_id": {"id": "N"},
        "user_nkey": "U",
    }
}


def batch(raw: bytes) -> None:
    codec.fit(codec.parse(raw), SPEC)


def packets(raw: bytes) -> None:
    reader = mqtt_packets.Reader()
    for at in range(0, len(raw), 7):
        reader.feed(raw[at : at + 7])
        while reader.next() is not None:
            pass


def callout(raw: bytes) -> None:
    auth_callout.read(raw)
    with suppress(ValueError):
        orjson.loads(raw)
    auth_callout.read(b"head." + auth_callout._encoded(raw) + b".signature")


def notification(raw: bytes) -> None:
    with suppress(UaError):  # the server says no, in order
        notification_message.publish(Buffer(raw))


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: read(raw.decode("utf-8", "surrogateescape"))


DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "batch": batch,
    "health": messages.decode_health,
    "mark": messages.decode_mark,
    "spec": messages.decode_spec,
    "packets": packets,
    "notification": notification,
    "callout": callout,
    "credential": text(Credential.parse),
    "topic": text(namespace.parse.__wrapped__),
    "stream": text(StreamAddress.parse),
    "instant": text(ns_of),
}


def published() -> bytes:
    """What a server of OPC UA sends where one value changed."""
    item = ua.MonitoredItemNotification(ClientHandle=1, Value=ua.DataValue(ua.Variant(1.5)))
    change = ua.DataChangeNotification(MonitoredItems=[item])
    answer = ua.PublishResponse()
    answer.Parameters.NotificationMessage.NotificationData = [change]
    return bytes(struct_to_binary(answer))


GOOD: Mapping[str, tuple[bytes, ...]] = {
    "batch": (BATCH,),
    "health": STATES,
    "mark": STATES,
    "spec": STATES,
    "notification": (published(),),
    "packets": (
        mqtt_packets.publish_head("tb1/live/data/a/b/c", 1, 2, retain=False) + b"{}",
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x80\x40\x02\x00\x01\xd0\x00",
    ),
    "callout": (orjson.dumps(CALLOUT),),
    "credential": (Credential.make("ada").text.encode(),),
    "topic": (b"tb1/live/data/factory/pump-rig/rig", b"tb1/live/mark/factory/pump-rig"),
    "stream": (b"factory/pump-rig/rig",),
    "instant": (b"2026-11-23T12:00:00.123456789Z",),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, examples: tuple[bytes, ...]) -> bytes:
    """A good one of which a few places are cut out, written over, doubled, or another value."""
    raw = bytearray(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(raw)))
        end = draw(st.integers(begin, min(len(raw), begin + 12)))
        put = draw(
            st.binary(max_size=6)
            | st.sampled_from(
                [b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b'"x"', b"[[[[", b"9" * 30]
            )
            | st.just(bytes(raw[begin:end]) * 2)
        )
        raw[begin:end] = put
    return bytes(raw)


def changed(raw: bytes) -> st.SearchStrategy[bytes]:
    """The same JSON with one member of another kind, however deep it lies."""
    document = orjson.loads(raw)
    places = list(_places(document, ()))

    def put(place: tuple[object, ...], value: object) -> bytes:
        whole = orjson.loads(raw)
        inside = whole
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        try:
            return orjson.dumps(whole)
        except (
            TypeError,
            ValueError,
        ):  # an integer that no JSON of ours can have, half a character
            return b"{}"

    return st.builds(put, st.sampled_from(places), VALUES)


def _places(node: object, here: tuple[object, ...]) -> list[tuple[object, ...]]:
    inner = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    places = [(*here, key) for key, _ in inner]
    inner = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return places + [each for key, value in inner for each in _places(value, (*here, key))]


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_whatever_bytes_come_a_decoder_reads_or_refuses_them(
    name: str, request: pytest.FixtureRequest
):
    began_s = time.monotonic()
    fuzz_s = float(request.config.getoption("--fuzz-s"))
    until_s = began_s + fuzz_s
    kinds = [st.binary(max_size=300), damaged(GOOD[name])]
    kinds += [changed(each) for each in GOOD[name] if each.startswith(b"{")]
    for each in GOOD[name]:
        with suppress(Corrupt):  # the states are one another's neighbours
            DECODERS[name](each)
    number = tries = 0
    while number == 0 or time.monotonic() < until_s:
        tries += _try(DECODERS[name], st.one_of(kinds), number)
        number += 1
    if fuzz_s and request.config.getoption("--keep-results"):  # or the last long run's stay
        took_s = round(time.monotonic() - began_s, 1)
        results.keep({"fuzz": {name: {"s": took_s, "tries": tries}}})


def _try(decode: Callable[[bytes], object], raws: st.SearchStrategy[bytes], number: int) -> int:
    """How often it was tried."""
    tries = 0

    @seed(number)
    @settings(
        max_examples=EXAMPLES if number == 0 else 2_000,
        deadline=5_000,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(raws)
    def attempt(raw: bytes) -> None:
        nonlocal tries
        tries += 1
        with suppress(Corrupt, Refused):
            decode(raw)

    attempt()
    return tries
