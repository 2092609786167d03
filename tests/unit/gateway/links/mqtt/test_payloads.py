"""What MQTT messages say: values, times, and what is none."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import BAD, GOOD, NO_VALUE
from broker.errors import Invalid
from broker.streams import Dtype
from gateway.links.mqtt import payloads
from gateway.mapping import mqtt_source
from gateway.mapping.conversions import Conversion
from gateway.mapping.mqtt_source import MqttSource, TimeForm

NOW = 1_000
S = 10**9


def read(payload: bytes, dtype: Dtype = Dtype.FLOAT64, **where: object) -> object:
    parts = {
        name: mqtt_source.pointer(text) if name in {"value", "time"} else text
        for name, text in where.items()
        if text is not None
    }
    return only(payloads.read(payload, MqttSource(topic="t", **parts), dtype, NOW))  # type: ignore[arg-type]


def only(samples: list[payloads.PayloadSample]) -> payloads.PayloadSample | None:
    """The sample of a payload that has one at most."""
    assert len(samples) <= 1
    return samples[0] if samples else None


@pytest.mark.parametrize(
    ("payload", "dtype", "value"),
    [
        (b"71.2", Dtype.FLOAT64, 71.2),
        (b" 7 \n", Dtype.FLOAT64, 7.0),
        (b"-3", Dtype.INT64, -3),
        (b"ON", Dtype.BOOL, True),
        (b"0", Dtype.BOOL, False),
        ("läuft".encode(), Dtype.STRING, "läuft"),
        (b"", Dtype.STRING, ""),
    ],
)
def test_a_plain_payload_is_the_value(payload: bytes, dtype: Dtype, value: object) -> None:
    assert read(payload, dtype) == (NOW, value, GOOD, "")


@pytest.mark.parametrize(
    ("payload", "dtype", "where"),
    [
        (b"warm", Dtype.FLOAT64, {}),
        (b"nan", Dtype.FLOAT64, {}),
        (b"1_000", Dtype.FLOAT64, {}),
        (b"1_000", Dtype.INT64, {}),
        (b"1e999", Dtype.FLOAT64, {}),
        (b"7.5", Dtype.INT64, {}),
        (b"9223372036854775808", Dtype.INT64, {}),
        (b"perhaps", Dtype.BOOL, {}),
        (b"\xff\xfa\x80", Dtype.STRING, {}),
        (b"x" * 20_000, Dtype.STRING, {}),
        (b"{", Dtype.FLOAT64, {"value": "/a"}),
        (b"[" * 5_000, Dtype.FLOAT64, {"value": "/a"}),
        (b'{"a": "warm"}', Dtype.FLOAT64, {"value": "/a"}),
        (b'{"a": null}', Dtype.FLOAT64, {"value": "/a"}),
        (b'{"a": true}', Dtype.INT64, {"value": "/a"}),
        (b'{"a": 1.5}', Dtype.FLOAT64, {"value": "/a", "time": "/t"}),
        (b'{"a": 1.5, "t": "soon"}', Dtype.FLOAT64, {"value": "/a", "time": "/t"}),
        (b'{"a": 1.5, "t": [1]}', Dtype.FLOAT64, {"value": "/a", "time": "/t"}),
        (b'{"a": 1.5, "t": -5}', Dtype.FLOAT64, {"value": "/a", "time": "/t", "form": TimeForm.S}),
        (b'{"a": 1, "t": 1e300}', Dtype.INT64, {"value": "/a", "time": "/t", "form": TimeForm.S}),
    ],
)
def test_what_is_no_value_is_a_bad_sample_with_its_reason(
    payload: bytes, dtype: Dtype, where: dict[str, str]
) -> None:
    sample = read(payload, dtype, **where)
    assert isinstance(sample, payloads.PayloadSample)
    assert (sample.time_ns, sample.quality) == (NOW, BAD)
    assert repr(sample.value) == repr(NO_VALUE[dtype])
    assert sample.reason.startswith("t")


@pytest.mark.parametrize("payload", [b"garbage", b'{"a": 1.5, "t": "soon"}', b'{"a": "warm"}'])
def test_a_retained_message_without_a_readable_time_has_none(payload: bytes) -> None:
    where = MqttSource(topic="t", value=("a",), time=("t",))
    sample = only(payloads.read(payload, where, Dtype.FLOAT64, None))
    assert isinstance(sample, payloads.PayloadSample)
    assert (sample.time_ns, sample.quality) == (None, BAD)
    text = b'{"a": "warm", "t": "1970-01-01T00:00:05Z"}'
    late = only(payloads.read(text, where, Dtype.FLOAT64, None))
    assert isinstance(late, payloads.PayloadSample)
    assert (late.time_ns, late.quality) == (5 * S, BAD)


@pytest.mark.parametrize(
    ("text", "form", "time_ns"),
    [
        ('"2026-11-23T12:00:00.123456789Z"', TimeForm.ISO8601, 1795435200123456789),
        ('"2026-11-23T13:00:00+01:00"', TimeForm.ISO8601, 1795435200 * S),
        ('"2026-11-23T12:00:00"', TimeForm.ISO8601, 1795435200 * S),
        ("1795435200", TimeForm.S, 1795435200 * S),
        ("1795435200.5", TimeForm.S, 1795435200 * S + S // 2),
        ("1795435200123", TimeForm.MS, 1795435200123 * 10**6),
        ("1795435200123456789", TimeForm.NS, 1795435200123456789),
    ],
)
def test_the_time_of_a_payload(text: str, form: TimeForm, time_ns: int) -> None:
    payload = f'{{"d": {{"a/b": [1, 2.5]}}, "t": {text}}}'.encode()
    sample = read(payload, value="/d/a~1b/1", time="/t", form=form)
    assert sample == (time_ns, 2.5, GOOD, "")


@pytest.mark.parametrize(
    ("payload", "dtype", "value"),
    [
        (b'{"a": "71.5"}', Dtype.FLOAT64, 71.5),
        (b'{"a": " -3 "}', Dtype.INT64, -3),
        (b'{"a": "On"}', Dtype.BOOL, True),
        (b'{"a": "71.5"}', Dtype.STRING, "71.5"),
    ],
)
def test_a_text_in_a_document_is_read_as_a_plain_payload_is(
    payload: bytes, dtype: Dtype, value: object
) -> None:
    assert read(payload, dtype, value="/a") == (NOW, value, GOOD, "")


def test_a_document_that_does_not_speak_of_a_signal_is_no_sample_of_it() -> None:
    assert read(b'{"b": 1}', value="/a") is None


@pytest.mark.parametrize("text", ["a", "a/b", "#/a"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no JSON Pointer"):
        mqtt_source.pointer(text)


@pytest.mark.parametrize("text", ["", "a/+/b", "a/#", "a\0b", "x" * 70_000])
def test_what_is_no_topic_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not one topic"):
        mqtt_source.checked_topic(text)


@pytest.mark.parametrize(
    ("payload", "dtype", "value"),
    [
        (b'{"a": "317.3988"}', Dtype.FLOAT64, 317.3988),
        (b'{"a": 5.0}', Dtype.INT64, 5),
        (b'{"a": 5}', Dtype.STRING, "5"),
        (b'{"a": 0.1}', Dtype.STRING, "0.1"),
        (b'{"a": true}', Dtype.STRING, "true"),
        (b'{"a": "007"}', Dtype.INT64, 7),
    ],
)
def test_what_loses_nothing_is_converted(payload: bytes, dtype: Dtype, value: object) -> None:
    assert read(payload, dtype, value="/a") == (NOW, value, GOOD, "")


CONVERSIONS = [
    (b"21,5", Dtype.FLOAT64, "comma", 21.5),
    (b"1.234,5", Dtype.FLOAT64, "comma", 1234.5),
    (b"12.4 V", Dtype.FLOAT64, "unit", 12.4),
    (b"-3mA", Dtype.INT64, "unit", -3),
    ("21,5 °C".encode(), Dtype.FLOAT64, "comma unit", 21.5),
    (b"0x1F", Dtype.INT64, "hex", 31),
    (b"true", Dtype.FLOAT64, "truth", 1.0),
    (b"2", Dtype.BOOL, "truth", True),
    (b'{"a": false}', Dtype.INT64, "truth", 0),
    (b'{"a": 0}', Dtype.BOOL, "truth", False),
    (b'{"a": 7.6}', Dtype.INT64, "round", 8),
]


@pytest.mark.parametrize(("payload", "dtype", "words", "value"), CONVERSIONS)
def test_what_loses_something_is_converted_by_a_word_alone(
    payload: bytes, dtype: Dtype, words: str, value: object
) -> None:
    where = {"value": "/a"} if payload.startswith(b"{") else {}
    allowed = frozenset(map(Conversion, words.split()))
    assert read(payload, dtype, convert=allowed, **where) == (NOW, value, GOOD, "")
    refused = read(payload, dtype, **where)
    assert refused is not None
    assert refused.quality == BAD
    if words in {"comma", "unit", "hex"}:
        assert f"write `convert: {words}` to read it" in refused.reason


@pytest.mark.parametrize("payload", [b"1_000", b"0x1G", b"12:30", b"2026-11-23", b"- 3", b"1,2,3"])
def test_what_is_no_number_is_none_with_any_word(payload: bytes) -> None:
    sample = read(payload, convert=frozenset(Conversion))
    assert sample is not None
    assert sample.quality == BAD


def test_a_document_that_is_not_quite_json_is_read_as_far_as_it_can_be() -> None:
    payload = b'{"A": {"T": nan}, "B": {"T": 10.0}}'.replace(b"nan", b"NaN")
    good, bad = read(payload, value="/B/T"), read(payload, value="/A/T")
    assert good == (NOW, 10.0, GOOD, "")
    assert bad is not None
    assert (bad.quality, bad.reason) == (BAD, "t#/A/T: it is no finite number")


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b'{"v": 1}\n{"v": 2}\n', [1.0, 2.0]),
        (b'{"v": 1}{"v": 2}', [1.0, 2.0]),
        (b'{"v": 1},\n{"v": 2},', [1.0, 2.0]),
        (b'{"v": 1}\n{"w": 5}\n{"v": 2}', [1.0, 2.0]),
    ],
)
def test_each_document_of_a_message_is_a_sample(payload: bytes, values: list[float]) -> None:
    where = MqttSource(topic="t", value=("v",))
    samples = payloads.read(payload, where, Dtype.FLOAT64, NOW)
    assert [sample.value for sample in samples] == values


def test_the_rest_of_a_message_that_was_cut_is_a_bad_sample() -> None:
    where = MqttSource(topic="t", value=("v",))
    good, bad = payloads.read(b'{"v": 1}\n{"v": ', where, Dtype.FLOAT64, NOW)
    assert (good.value, good.quality) == (1.0, GOOD)
    assert (bad.quality, bad.reason) == (BAD, "t#/v: a part of it is no JSON")


GATEWAY = (
    b'{"values": [{"id": "Tag2", "v": 7.5, "t": 1000}, {"id": "Tag1", "v": 630, "t": 2000},'
    b' {"id": "Tag2", "v": 7.6, "t": 3000}]}'
)


def test_elements_are_chosen_by_a_field_each_with_its_own_time() -> None:
    where = MqttSource(
        topic="t",
        value=mqtt_source.pointer("/values/[id=Tag2]/v"),
        time=mqtt_source.pointer("/values/[id=Tag2]/t"),
        form=TimeForm.MS,
    )
    samples = payloads.read(GATEWAY, where, Dtype.FLOAT64, NOW)
    assert [(each.time_ns, each.value) for each in samples] == [(S, 7.5), (3 * S, 7.6)]


def test_every_element_of_an_array_is_a_sample() -> None:
    where = MqttSource(
        topic="t",
        value=mqtt_source.pointer("/d/*/1"),
        time=mqtt_source.pointer("/d/*/0"),
        form=TimeForm.S,
    )
    samples = payloads.read(b'{"d": [[1, 1.5], [2, 2.5], [null, 3.5]]}', where, Dtype.FLOAT64, NOW)
    assert [(each.time_ns, each.value) for each in samples[:2]] == [(S, 1.5), (2 * S, 2.5)]
    assert samples[2].reason == "t#/d/*/1: there is no time stamp in the form s at /d/*/0"


def test_a_time_beside_an_array_is_that_of_its_elements() -> None:
    where = MqttSource(
        topic="t",
        value=mqtt_source.pointer("/d/[id=a]/v"),
        time=mqtt_source.pointer("/t"),
        form=TimeForm.S,
    )
    (sample,) = payloads.read(b'{"t": 5, "d": [{"id": "a", "v": 1}]}', where, Dtype.FLOAT64, NOW)
    assert (sample.time_ns, sample.value) == (5 * S, 1.0)


@pytest.mark.parametrize(
    ("text", "form", "zone", "time_ns"),
    [
        ('"1612881528"', TimeForm.S, "UTC", 1612881528 * S),
        ('"1612881528.25"', TimeForm.S, "UTC", 1612881528 * S + S // 4),
        ('"1612881528123"', TimeForm.MS, "UTC", 1612881528123 * 10**6),
        ('"09.11.2026 13:00:00"', "%d.%m.%Y %H:%M:%S", "Europe/Stockholm", 1794225600 * S),
        ('"2026-11-09T13:00:00"', TimeForm.ISO8601, "Europe/Stockholm", 1794225600 * S),
        ('"2026-07-09T14:00:00"', TimeForm.ISO8601, "Europe/Stockholm", 1783598400 * S),
    ],
)
def test_times_as_text_by_pattern_and_in_a_zone(
    text: str, form: TimeForm | str, zone: str, time_ns: int
) -> None:
    payload = f'{{"a": 1, "t": {text}}}'.encode()
    assert read(payload, value="/a", time="/t", form=form, zone=zone) == (time_ns, 1.0, GOOD, "")


JSON = '{"a": 21.5, "u": "°C"}'
BODIES = {
    "gzip": gzip.compress(JSON.encode()),
    "zlib": zlib.compress(JSON.encode()),
    "byte order mark": JSON.encode("utf-8-sig"),
    "UTF-16 with a mark": JSON.encode("utf-16"),
    "UTF-16 without": JSON.replace("°", "").encode("utf-16-be"),
    "trailing NUL": JSON.encode() + b"\0\0",
}


@pytest.mark.parametrize("body", BODIES)
def test_bodies_are_read_in_whichever_form_they_come(body: str) -> None:
    assert read(BODIES[body], value="/a") == (NOW, 21.5, GOOD, "")


def test_an_encoding_that_cannot_be_seen_is_stated() -> None:
    payload = JSON.encode("latin-1")
    bad = read(payload, Dtype.STRING, value="/u")
    assert bad is not None
    assert bad.reason == (
        "t#/u: byte 0xb0 is no text in UTF-8; write `encoding: latin-1`, or what it is"
    )
    assert read(payload, Dtype.STRING, value="/u", encoding="latin-1") == (NOW, "°C", GOOD, "")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (gzip.compress(bytes(9 * 1024 * 1024)), "it has more than 8,388,608 bytes once it is"),
        (gzip.compress(JSON.encode())[:-9], "its compressed body is cut"),
        (b"\x1f\x8bgarbage", "its gzip is damaged"),
        (b"xylophone", "it is no JSON"),
        (b"  ", "it is empty, which is no JSON"),
    ],
    ids=["a bomb", "cut", "damaged", "a text", "nothing"],
)
def test_a_body_that_cannot_be_read_is_said(payload: bytes, reason: str) -> None:
    bad = read(payload, value="/a")
    assert bad is not None
    assert bad.reason.startswith(f"t#/a: {reason}")


def test_one_fault_has_one_reason_whatever_the_payload() -> None:
    reasons = {
        read(f'{{"a": "warm {n}", "t": "soon {n}"}}'.encode(), value="/a", **more).reason
        for n in range(50)
        for more in ({}, {"time": "/t"})
    }
    assert len(reasons) == 2


@pytest.mark.parametrize("text", ["%d.%m.%Y %H:%M:%S", "iso8601", "ms"])
def test_forms_of_a_time_stamp(text: str) -> None:
    assert mqtt_source.checked_time_form(text) == text


@pytest.mark.parametrize("text", ["minutes", "%Q", "%"])
def test_what_is_no_form_of_a_time_stamp_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no form of a time stamp"):
        mqtt_source.checked_time_form(text)


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=30).map(str.encode)),
    st.sampled_from(Dtype),
    st.sampled_from([None, (), ("a",), ("0",), ("*",), ("[a=1]",)]),
    st.sampled_from([None, (), ("t",), ("1",), ("*", "t")]),
    st.sampled_from([*TimeForm, "%d.%m.%Y"]),
    st.frozensets(st.sampled_from(Conversion)),
)
def test_no_payload_makes_it_raise(
    payload: bytes,
    dtype: Dtype,
    value: tuple[str, ...] | None,
    time: tuple[str, ...] | None,
    form: TimeForm,
    convert: frozenset[Conversion],
) -> None:
    where = MqttSource(topic="t", value=value, time=time, form=form, convert=convert)
    for sample in payloads.read(payload, where, dtype, NOW):
        assert (sample.quality == BAD) == bool(sample.reason)
