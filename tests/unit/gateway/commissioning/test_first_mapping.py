"""What a first mapping takes from payloads, names and intervals, and what it says of the rest."""

import orjson
import pytest

from broker.namespace import EquipmentAddress, EquipmentKind
from broker.streams import Dtype
from gateway.commissioning import mapping_text, payload_kinds, periods, unit_names
from gateway.commissioning.mapping_text import ProposedStream
from gateway.mapping import file as mapping_file


@pytest.mark.parametrize(
    ("text", "name", "unit"),
    [
        ("Wear [\N{MICRO SIGN}m]", "Wear", "um"),
        ("Wear [\N{GREEK SMALL LETTER MU}m]", "Wear", "um"),
        ("Oil temperature [\N{DEGREE SIGN}C]", "Oil temperature", "Cel"),
        ("Oil (\N{DEGREE SIGN}C)", "Oil", "Cel"),
        ("Load (%)", "Load", "%"),
        ("Torque [Nm]", "Torque", "N.m"),
        ("Gap [nm]", "Gap", "nm"),
        ("Acceleration [m/s\N{SUPERSCRIPT TWO}]", "Acceleration", "m/s2"),
        ("Speed[rpm]", "Speed", "/min"),
        ("Flow [L/min]", "Flow", "L/min"),
        ("Coil [k\N{GREEK CAPITAL LETTER OMEGA}]", "Coil", "kOhm"),
        ("Energy [kWh]", "Energy", "kW.h"),
        ("Motor (A)", "Motor (A)", None),
        ("Axis[1]", "Axis[1]", None),
        ("Pressure", "Pressure", None),
    ],
)
def test_a_unit_in_brackets_becomes_ucum(text: str, name: str, unit: str | None) -> None:
    assert unit_names.split(text) == unit_names.NamedUnit(name, unit)


@pytest.mark.parametrize("unit", ["C", "quux"])
def test_a_unit_that_is_not_known_stays_in_the_name_and_is_told(unit: str) -> None:
    assert unit_names.split(f"Oil [{unit}]") == unit_names.NamedUnit(f"Oil [{unit}]", None, unit)


def only(*payloads: bytes) -> tuple[str, str]:
    """The dtype of the one signal of a topic, and the remark on it."""
    result = payload_kinds.of_topic("shop/x", payloads)
    assert not result.left_out
    (fields,) = result.signals.values()
    return fields["dtype"], " ".join(result.remarks)


@pytest.mark.parametrize(
    ("payloads", "dtype", "remark"),
    [
        ([b"71.5", b"72"], Dtype.FLOAT64, ""),
        ([b"true"], Dtype.BOOL, ""),
        ([b"ON", b"off"], Dtype.BOOL, "true or false as text"),
        ([b"RUN", b"STOP", b"RUN"], Dtype.STRING, "states as text, so far: RUN, STOP"),
        ([b"71,5"], Dtype.FLOAT64, "decimal comma"),
        (["71.5 \N{DEGREE SIGN}C".encode()], Dtype.FLOAT64, "a number with its unit"),
        ([b"0042"], Dtype.STRING, ""),
        ([b'{"a": "71.5"}'], Dtype.FLOAT64, "a number as text"),
        ([b'{"a": 1}', b'{"a": "2"}'], Dtype.FLOAT64, "sometimes as text"),
        ([b'{"a": null}', b'{"a": 2}'], Dtype.FLOAT64, ""),
        ([b'{"ts": 1795435200123}'], Dtype.FLOAT64, "time: /ts, time_format: ms"),
        ([b'{"ts": "2026-11-23T12:00:00Z"}'], Dtype.STRING, "a time stamp: write time: /ts"),
        ([b'"RUN"'], Dtype.STRING, ""),
    ],
)
def test_a_value_has_the_dtype_of_all_that_was_seen(
    payloads: list[bytes], dtype: str, remark: str
) -> None:
    seen, said = only(*payloads)
    assert seen == dtype
    assert remark in said
    assert bool(remark) == bool(said)


def test_what_is_read_by_a_word_alone_is_proposed_with_it() -> None:
    for payload, word in ((b"71,5", "comma"), (b"12.4 V", "unit")):
        (fields,) = payload_kinds.of_topic("a/b", [payload]).signals.values()
        assert fields["convert"] == word


def test_elements_are_proposed_by_the_field_that_tells_them_apart() -> None:
    payload = b'{"values": [{"id": "Tag2", "v": 7.5}, {"id": "Tag1", "v": 630}]}'
    signals = payload_kinds.of_topic("a/b", [payload]).signals
    assert [fields["value"] for fields in signals.values()] == [
        "/values/[id=Tag2]/v",
        "/values/[id=Tag1]/v",
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x00\x01\xff", "a binary payload of 3 bytes (00 01 ff …)"),
        (b"\x1f\x8b\x08", "a binary payload"),
        (b"", "an empty payload"),
        (b'["a", "b"]', "an array of 2 values, which are no numbers"),
        (b'{"a": [1, true, 3]}', "write value: /a/0 for the first of them"),
        (b'{"a": []}', "an array of 0 values"),
        (b'{"a": null}', "it was null all the time"),
        (b'{"a": {}}', "an object without fields"),
        (b"{}", "an object without fields"),
        (b"x" * 20_000, "a text of more than"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_reason(payload: bytes, reason: str) -> None:
    result = payload_kinds.of_topic("shop/x", [payload])
    assert not result.signals
    (sentence,) = result.left_out
    assert sentence.startswith("shop/x")
    assert reason in sentence


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        (b"[1, 2.5]", {"dtype": "float64", "shape": [2]}),
        (b'{"a": [1, 2, 3]}', {"dtype": "float64", "shape": [3], "value": "/a"}),
        (b'{"a": [true, false]}', {"dtype": "bool", "shape": [2], "value": "/a"}),
    ],
)
def test_an_array_of_one_length_is_a_signal(payload: bytes, fields: dict[str, object]) -> None:
    result = payload_kinds.of_topic("shop/x", [payload, payload])
    (fields_read,) = result.signals.values()
    assert fields_read == {"topic": "shop/x"} | fields
    assert not result.left_out


def test_arrays_of_several_lengths_are_left_to_a_person() -> None:
    result = payload_kinds.of_topic("t", [b"[1, 2]", b"[1, 2, 3]"])
    assert not result.signals
    assert "an array of 2/3 values" in result.left_out[0]


def test_a_value_whose_type_differs_is_left_to_a_person() -> None:
    result = payload_kinds.of_topic("t", [b'{"a": 1}', b'{"a": true}'])
    assert not result.signals
    assert "choose a dtype by hand" in result.left_out[0]


def test_sparkplug_is_named() -> None:
    result = payload_kinds.of_topic("spBv1.0/g/DDATA/n", [b"\x08\x01"])
    assert "Sparkplug B" in result.left_out[0]


def test_no_document_has_more_signals_than_a_stream() -> None:
    result = payload_kinds.of_topic("t", [orjson.dumps({f"v{n}": n for n in range(1_200)})])
    assert (len(result.signals), len(result.left_out)) == (1_000, 200)


@pytest.mark.parametrize(
    ("intervals_s", "period_s", "sentence"),
    [
        ([0.101, 0.099, 0.1, 0.1], 0.1, "measured in 5 s: 0.1 s between samples (0.099 to 0.1 s)"),
        ([0.1, 0.1, 0.5, 0.5], 0.0, "irregular: no period_s"),
        ([1.0], 0.0, "too few samples for a period"),
        ([], 0.0, "too few samples for a period"),
    ],
)
def test_a_period_is_what_was_measured_where_it_is_regular(
    intervals_s: list[float], period_s: float, sentence: str
) -> None:
    period = periods.measured(intervals_s, 5.0)
    assert period.period_s == period_s
    assert sentence in period.sentence


def test_the_kind_is_the_one_that_was_asked_for_and_is_called_final() -> None:
    stream = ProposedStream({"a": {"topic": "t"}})
    text = mapping_text.write(
        "# head\n",
        EquipmentAddress("factory", "press"),
        {"mqtt": {"url": "mqtt://h:1"}},
        {"s": stream},
        [],
        kind=EquipmentKind.SIMULATED,
    )
    assert mapping_file.read(text, "m").kind == "simulated"
    assert "\nkind: simulated  # real or simulated; final once" in text


def test_comments_of_others_stay_comments() -> None:
    stream = ProposedStream({"a": {"topic": "t"}}, {}, ["evil\nkind: simulated"])
    equipment = EquipmentAddress("factory", "press")
    text = mapping_text.write(
        "# head\n", equipment, {"mqtt": {"url": "mqtt://h:1"}}, {"s": stream}, ["x\r\ny: 1"] * 600
    )
    assert mapping_file.read(text, "m").kind == "real"
    assert "  # evil?kind: simulated\n" in text
    assert text.endswith("# - and 100 more\n")
