"""Expectations as a scenario file writes them: one model a kind, mistakes at their field."""

import json

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from broker.streams import Dtype, Signal
from testbed_scenarios.expectations import model
from testbed_scenarios.expectations.conditions import NumberCondition, SignalCondition

EXPECTATION = TypeAdapter(model.Expectation)
WRITTEN = {
    "always": {"signal": "rig/Pressure", "always": {"below": "0.5"}, "from": "0s", "to": "60s"},
    "eventually": {
        "signal": "detector/score/anomaly",
        "eventually": {"is": "true"},
        "within": "10s",
        "after": {"fault": "valve"},
    },
    "never": {"signal": "rig/Pressure", "never": {"above": "3"}, "unknown": "fails"},
    "count": {"stream": "detector/score", "count": {"at_least": "590"}},
    "rate": {"stream": "detector/score", "rate": {"at_least": "0.9 /s"}, "over": "10s"},
    "settles": {
        "signal": "rig/Pressure",
        "settles": {"to": "0.5", "band": "0.02", "within": "30s"},
        "after": {"event": "server-restart"},
    },
    "detection": {
        "detection": "detector/score/anomaly",
        "truth": "rig",
        "f1": {"at_least": "80 %"},
        "delay": {"at_most": "5s"},
        "by": "event",
    },
    "control": {
        "control": "rig/Pressure",
        "set_point": "2.0",
        "overshoot": {"at_most": "10 %"},
        "energy": {"at_most": "1.5 kW.h"},
    },
    "resources": {"resources": "detector", "cpu": {"at_most": "50 %"}, "lag": {"at_most": "1s"}},
}


@pytest.mark.parametrize("word", WRITTEN)
def test_a_written_expectation_becomes_the_model_of_its_kind(word):
    expectation = EXPECTATION.validate_python(WRITTEN[word])
    assert type(expectation) is model.KINDS[word]
    dumped = EXPECTATION.dump_json(expectation, by_alias=True, exclude_unset=True)
    assert EXPECTATION.validate_python(json.loads(dumped)) == expectation


def test_a_share_above_the_whole_and_a_memory_are_dumped_and_read():
    written = {"resources": "d", "cpu": {"at_most": "150 %"}, "memory": {"at_most": "1 GiB"}}
    expectation = EXPECTATION.validate_python(written)
    assert (expectation.cpu.at_most, expectation.memory.at_most) == (1.5, 2.0**30)
    dumped = EXPECTATION.dump_json(expectation, by_alias=True, exclude_unset=True)
    assert EXPECTATION.validate_python(json.loads(dumped)) == expectation


def test_every_kind_is_written_here_and_has_described_fields():
    assert WRITTEN.keys() == model.KINDS.keys()
    forms = [*model.KINDS.values(), model.Occurrences, model.Settling, SignalCondition]
    for form in forms:
        for name, field in form.model_fields.items():
            assert field.description, f"{form.__name__}.{name}"


def test_numbers_are_held_in_one_unit():
    control = EXPECTATION.validate_python(WRITTEN["control"])
    assert control.overshoot.at_most == pytest.approx(0.1)
    assert control.energy.at_most == 5.4e6
    resources = EXPECTATION.validate_python(
        {"resources": "detector", "memory": {"at_most": "300 MB"}, "lag": {"below": "1min30s"}}
    )
    assert resources.memory.at_most == 3e8
    assert resources.lag.below == 90_000_000_000


@pytest.mark.parametrize(
    ("written", "place", "words"),
    [
        ({"signal": "rig/P"}, (), "add one of the fields always"),
        ({"signal": "rig/P", "eventualy": {"is": "1"}}, (), "; did you mean 'eventually'?"),
        ({"stream": "rig", "cont": {"above": "1"}}, (), "; did you mean 'count'?"),
        (
            {"signal": "rig/P", "always": {"below": "1"}, "never": {"above": "2"}},
            (),
            "two expectations",
        ),
        ({"signal": "rig", "always": {"below": "1"}}, ("signal",), "names no signal"),
        ({"signal": "rig/P", "always": {"below": "high"}}, ("always", "below"), "no number"),
        (
            {"signal": "rig/P", "always": {"below": "600 kPa"}},
            ("always", "below"),
            "'kPa' is no unit of this number; write the number alone, in the unit of the signal",
        ),
        ({"stream": "rig", "count": {"above": "3 /s"}}, ("count", "above"), "the number alone"),
        *(
            ({"detection": "d/s/a", "truth": "rig", "recall": written}, path, words)
            for written, path, words in (
                ({"at_least": "100"}, ("recall", "at_least"), "than 1: write 100 %, or 1"),
                ({"at_least": "85"}, ("recall", "at_least"), "than 1: write 85 %, or 0.85"),
                ({"at_least": "850"}, ("recall", "at_least"), "850 is more than 1; write 0.8"),
                ({"at_least": "101 %"}, ("recall", "at_least"), "more than the whole"),
                ("1", ("recall",), "write {at_least: 1} or {at_most: 1}"),
                ("-.5", ("recall",), "write {at_least: -.5} or"),
                ("all", ("recall",), "a word and a bound, such as {at_least: 1}"),
                (["1"], ("recall",), "a word and a bound, such as {at_least: 1}"),
            )
        ),
        (
            {"resources": "d", "memory": {"at_most": "300"}},
            ("memory", "at_most"),
            "300 has no unit; write one behind it, such as 300 MB",
        ),
        (
            {"resources": "d", "cpu": {"at_most": "2"}},
            ("cpu", "at_most"),
            "2 is more than 1: write its unit, 2 % or 200 %",
        ),
        ({"signal": "rig/P", "always": {}}, ("always",), "needs a word"),
        ({"signal": "rig/P", "always": {"below": None}}, ("always",), "needs a word"),
        ({"signal": "rig/P", "always": {"below": "1", "above": "2"}}, ("always",), "no value"),
        ({"signal": "rig/P", "always": {"is": "1", "above": "0"}}, ("always",), "leave the other"),
        ({"signal": "rig/P", "always": {"below": "1"}, "from": "9s", "to": "9s"}, (), "later"),
        ({"signal": "rig/P", "eventually": {"is": "true"}, "within": 10}, ("within",), "unit"),
        (
            {"signal": "rig/P", "eventually": {"is": "1"}, "within": "9s", "to": "9s"},
            (),
            "leave `to` out",
        ),
        ({"count": {"above": "1"}}, (), "`signal` or `stream`"),
        ({"stream": "rig", "rate": {"above": "3 bar"}}, ("rate", "above"), "no unit"),
        ({"detection": "d/s/a", "truth": "rig"}, (), "expects no score"),
        (
            {
                "detection": "d/s/a",
                "truth": "rig",
                "by": "event",
                "false_alarm_rate": {"below": "5 %"},
            },
            (),
            "false_alarms",
        ),
        ({"control": "rig/P", "overshoot": {"below": "5 %"}}, (), "set_point"),
        ({"resources": "detector"}, (), "cpu, memory or lag"),
        (
            {"signal": "rig/P", "always": {"below": "1"}, "after": {"fault": "a", "event": "b"}},
            ("after",),
            "a fault or an event",
        ),
    ],
)
def test_a_mistake_is_a_sentence_at_its_field(written, place, words):
    with pytest.raises(ValidationError) as caught:
        EXPECTATION.validate_python(written)
    (error,) = caught.value.errors()
    assert error["loc"] == place
    assert words in str(error["ctx"]["error"])


def test_an_unknown_field_is_named_with_its_place():
    with pytest.raises(ValidationError) as caught:
        EXPECTATION.validate_python({"signal": "rig/P", "always": {"belov": "1"}})
    assert ("always", "belov") in [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("condition", "holding", "failing", "text"),
    [
        ({"below": 2}, 1.0, 2.0, "below 2 bar"),
        ({"above": 2}, 3.0, 2.0, "above 2 bar"),
        ({"at_least": 2}, 2.0, 1.0, "at least 2 bar"),
        ({"at_most": 2}, 2.0, 3.0, "at most 2 bar"),
        ({"between": [1, 2]}, 2.0, 2.5, "between 1 bar and 2 bar"),
        ({"above": 1, "at_most": 2}, 2.0, 1.0, "above 1 bar and at most 2 bar"),
        ({"is": 2}, 2.0, 1.5, "2 bar"),
    ],
)
def test_each_word_of_a_condition(condition, holding, failing, text):
    parsed = NumberCondition.model_validate(condition)
    holds, margin = parsed.judge([holding, failing])
    assert holds.tolist() == [True, False]
    assert margin[0] >= 0 >= margin[1]
    assert parsed.text("bar") == text


def test_is_takes_what_the_signal_holds():
    truth = SignalCondition.model_validate({"is": "true"})
    assert truth.judge(np.array([True, False])).holds.tolist() == [True, False]
    text = SignalCondition.model_validate({"is": "idle"})
    assert text.judge(np.array(["idle", "busy"], np.object_)).holds.tolist() == [True, False]
    number = SignalCondition.model_validate({"is": "3"})
    assert number.judge(np.array([3, 4])).holds.tolist() == [True, False]
    assert number.judge(np.array([3, 5])).margin.tolist() == [0, -2]
    assert np.isnan(text.judge(np.array(["idle"], np.object_)).margin).all()


@pytest.mark.parametrize(
    ("condition", "dtype", "fits"),
    [
        ({"below": 1}, Dtype.FLOAT64, True),
        ({"below": 1}, Dtype.BOOL, False),
        ({"below": 1}, Dtype.STRING, False),
        ({"is": "true"}, Dtype.BOOL, True),
        ({"is": "yes"}, Dtype.BOOL, False),
        ({"is": "idle"}, Dtype.STRING, True),
        ({"is": "idle"}, Dtype.INT64, False),
        ({"is": "4"}, Dtype.INT64, True),
    ],
)
def test_a_condition_that_cannot_be_about_a_signal_says_why(condition, dtype, fits):
    sentence = SignalCondition.model_validate(condition).mismatch(Signal("Level", dtype))
    assert (sentence == "") is fits
    assert fits or "Level" in sentence


def test_durations_are_exact_and_written_as_they_are_read():
    written = {"signal": "rig/P", "always": {"below": "1"}, "from": "0s", "to": "2.500001s"}
    always = EXPECTATION.validate_python(written)
    assert (always.from_ns, always.to_ns) == (0, 2_500_001_000)
    dumped = always.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert (dumped["from"], dumped["to"]) == ("0s", "2.500001s")
    lag = EXPECTATION.validate_python({"resources": "detector", "lag": {"at_most": "0s"}}).lag
    assert (lag.at_most, lag.text()) == (0, "at most 0s")


@pytest.mark.parametrize("length", ["0s", "0.0001ms", "5"])
@pytest.mark.parametrize(
    "written",
    [
        {"signal": "rig/P", "eventually": {"is": "1"}, "within": None},
        {"stream": "rig", "rate": {"above": "3"}, "over": None},
    ],
)
def test_a_length_has_a_unit_and_is_above_0(written, length):
    name = list(written)[-1]
    with pytest.raises(ValidationError) as caught:
        EXPECTATION.validate_python({**written, name: length})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


def test_the_schema_of_an_expectation_is_json():
    schema = EXPECTATION.json_schema()
    assert len(schema["anyOf"]) == len(model.KINDS)
    assert json.dumps(schema)
