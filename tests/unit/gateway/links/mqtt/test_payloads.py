"""What MQTT messages say: values, times, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import BAD, GOOD, NO_VALUE
from broker.errors import Invalid
from broker.streams import Dtype
from gateway.links.mqtt import payloads
from gateway.mapping import mqtt_source
from gateway.mapping.mqtt_source import MqttSource, TimeForm

NOW = 1_000
S = 10**9


def read(payload: bytes, dtype: Dtype = Dtype.FLOAT64, **where: object) -> object:
    parts = {
        name: mqtt_source.pointer(text) if name != "form" else text
        for name, text in where.items()
        if isinstance(text, str)
    }
    return payloads.read(payload, MqttSource(topic="t", **parts), dtype, NOW)  # type: ignore[arg-type]


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
        (b"\xff\xfe", Dtype.STRING, {}),
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
    sample = payloads.read(payload, where, Dtype.FLOAT64, None)
    assert isinstance(sample, payloads.PayloadSample)
    assert (sample.time_ns, sample.quality) == (None, BAD)
    late = payloads.read(b'{"a": "warm", "t": "1970-01-01T00:00:05Z"}', where, Dtype.FLOAT64, None)
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


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=30).map(str.encode)),
    st.sampled_from(Dtype),
    st.sampled_from([None, (), ("a",), ("0",)]),
    st.sampled_from([None, (), ("t",), ("1",)]),
    st.sampled_from(TimeForm),
)
def test_no_payload_makes_it_raise(
    payload: bytes,
    dtype: Dtype,
    value: tuple[str, ...] | None,
    time: tuple[str, ...] | None,
    form: TimeForm,
) -> None:
    sample = payloads.read(
        payload, MqttSource(topic="t", value=value, time=time, form=form), dtype, NOW
    )
    assert sample is None or (sample.quality == BAD) == bool(sample.reason)
