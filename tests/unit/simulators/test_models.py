"""The port of models and their catalogue: held for every model that there is."""

import math

import numpy as np
import pytest

from broker.errors import Invalid
from broker.units import checked_unit
from simulators import catalogue
from simulators.catalogue import MODELS
from simulators.faults import Fault

each_model = pytest.mark.parametrize("info", MODELS.values(), ids=MODELS)
each_fault = pytest.mark.parametrize(
    ("info", "kind"),
    [(info, kind) for info in MODELS.values() for kind in info.faults],
    ids=[f"{info.name}-{kind}" for info in MODELS.values() for kind in info.faults],
)


def numbers(row):
    """Every number of a row, those of arrays one by one."""
    for value in row.values:
        yield from value if isinstance(value, tuple) else (value,)


@each_model
def test_rows_are_the_same_however_many_are_asked_for_at_once(info):
    fault = Fault(next(iter(info.faults)), 100 * info.period_s, 400 * info.period_s)
    settings = {"seed": 4, "faults": [fault], "count": 700}
    rows = list(info.make(**settings).rows())
    model = info.make(**settings)
    assert model.advance(1, {}) + model.advance(310, {}) + model.advance(389, {}) == rows
    assert list(model.rows()) == rows
    assert all(math.isfinite(value) for row in rows for value in numbers(row))
    assert all(type(value) is float for row in rows for value in numbers(row))


@each_model
def test_another_seed_gives_other_rows(info):
    assert info.make(seed=1).advance(5, {}) != info.make(seed=2).advance(5, {})


@each_fault
def test_a_fault_is_labelled_and_is_seen_by_a_sensor(info, kind):
    period_s, span = info.period_s, (300, 900)
    fault = Fault(kind, span[0] * period_s, span[1] * period_s)
    rows = info.make(seed=2, faults=[fault]).advance(900, {})
    healthy = info.make(seed=2).advance(900, {})
    assert [row.values for row in rows[:300]] == [row.values for row in healthy[:300]]
    assert [row.values for row in rows] != [row.values for row in healthy]
    assert [row.anomaly for row in rows] == [300 < at < 900 for at in range(900)]
    assert {row.cause for row in rows} == {"", kind}


@each_fault
def test_every_value_lies_in_its_signals_range(info, kind):
    for inputs in ({each.name: each.low for each in info.inputs}, {}):
        rows = info.make(seed=3, faults=[Fault(kind, 1, 1e9)], inputs=inputs).advance(600, {})
        for signal, column in zip(
            info.signals, zip(*(r.values for r in rows), strict=True), strict=True
        ):
            assert signal.low <= np.min(column)
            assert np.max(column) <= signal.high
            assert np.shape(column) == (600, *signal.shape)


@each_model
def test_an_input_acts_from_the_next_row_on_and_keeps_its_value(info):
    for signal in info.inputs:
        changed, left = info.make(seed=5), info.make(seed=5)
        changed.advance(10, {})
        left.advance(10, {})
        value = signal.low if info.input_defaults[signal.name] != signal.low else signal.high
        after = changed.advance(1, {signal.name: value}) + changed.advance(500, {})
        assert after != left.advance(501, {})
        again = info.make(seed=5)
        again.advance(10, {})
        assert after == again.advance(501, {signal.name: value})


@each_model
def test_an_input_is_limited_to_the_range_of_its_actuator(info):
    beyond = {signal.name: signal.high + 1e9 for signal in info.inputs}
    most = {signal.name: signal.high for signal in info.inputs}
    assert info.make().advance(50, beyond) == info.make().advance(50, most)
    with pytest.raises(Invalid, match=rf"input \w+ of {info.name} is 1") as refused:
        info.make(inputs=beyond)  # a mistake, where it is an argument
    assert " to " in refused.value.hint


@each_model
def test_a_model_says_all_that_a_catalogue_needs(info):
    assert catalogue.model(info.name) is info
    assert info.input_defaults.keys() == {signal.name for signal in info.inputs}
    for signal in (*info.signals, *info.inputs):
        checked_unit(signal.unit)
        assert signal.description
        assert signal.low < signal.high
    for parameter in info.parameters:
        checked_unit(parameter.unit)
        assert parameter.description
        assert parameter.low <= parameter.default <= parameter.high
    assert all(len(text) > 20 for text in info.faults.values())


@each_model
@pytest.mark.parametrize("end", ["low", "high"])
def test_every_parameter_may_be_at_either_end_of_its_range(info, end):
    for parameter in info.parameters:
        model = info.make(parameters={parameter.name: getattr(parameter, end)})
        rows = model.advance(20, {})
        assert all(math.isfinite(value) for row in rows for value in numbers(row))


def test_the_catalogue_knows_a_model_by_its_signals():
    names = [signal.name for signal in MODELS["pump-rig"].signals]
    assert catalogue.kinds_of(names) == {"valve", "cavitation", "bearing"}
    assert not catalogue.kinds_of(names[:3])


PUMP = MODELS["pump-rig"]


@pytest.mark.parametrize(
    ("act", "said", "hint"),
    [
        (lambda: catalogue.model("pump-rgi"), "no model 'pump-rgi'", "did you mean 'pump-rig'?"),
        (lambda: catalogue.model("x"), "no model 'x'", "it has pump-rig"),
        (
            lambda: PUMP.make(parameters={"shut_openning": 0.5}),
            "pump-rig has no parameter 'shut_openning'",
            "did you mean 'shut_opening'?",
        ),
        (
            lambda: PUMP.make(parameters={"ambient": 900}),
            "parameter ambient of pump-rig is 900 Cel",
            "15 to 45 Cel: temperature of the room",
        ),
        (
            lambda: PUMP.make(parameters={"ambient": math.nan}),
            "parameter ambient of pump-rig is nan Cel",
            "15 to 45 Cel",
        ),
        (
            lambda: PUMP.make(faults=[Fault("valv", 1, 2)]),
            "pump-rig has no fault 'valv'",
            "did you mean 'valve'?",
        ),
        (
            lambda: PUMP.make(inputs={"openig": 1}),
            "pump-rig has no input 'openig'",
            "did you mean 'opening'?",
        ),
        (
            lambda: PUMP.make().advance(1, {"opening": math.nan}),
            "input opening of pump-rig is nan",
            "a finite number",
        ),
    ],
)
def test_a_wrong_argument_is_refused_with_what_would_be_right(act, said, hint):
    with pytest.raises(Invalid) as refused:
        act()
    assert said in str(refused.value)
    assert hint in refused.value.hint
