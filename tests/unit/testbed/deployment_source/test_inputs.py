"""Inputs of a deployment: their rows on one time axis, and their samples in columns."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, NO_SAMPLE
from broker.deployments import source
from broker.errors import Invalid
from broker.namespace import EquipmentKind
from broker.streams import Dtype, Signal
from simulators.model import SourceRow
from testbed.deployment_source import inputs, simulated
from testbed.deployment_source.inputs import PlayedInput, PlayedInputs

FLOW = Signal("flow")
IS_OPEN = Signal("is open", Dtype.BOOL)
SPECTRUM = Signal("spectrum", shape=(2,))


def played(name, times):
    rows = [SourceRow(time_ns, (float(time_ns),)) for time_ns in times]
    return PlayedInput(name=name, signals=(FLOW,), rows=lambda: iter(rows))


def both(**parts):
    each = [played("slow", [100, 110]), played("fast", [100, 105, 110])]
    return PlayedInputs(inputs=each, kind=EquipmentKind.REAL, begin_ns=100, **parts)


def test_rows_of_all_inputs_come_in_the_order_of_time_from_zero_on():
    rows = [(time_ns, name) for time_ns, name, _ in both().rows()]
    assert rows == [(0, "slow"), (0, "fast"), (5, "fast"), (10, "slow"), (10, "fast")]


def test_a_source_that_begins_again_goes_on_in_time():
    rows = both(length_ns=15).rows()
    assert [next(rows)[0] for _ in range(11)] == [0, 0, 5, 10, 10, 15, 15, 20, 25, 25, 30]


def test_a_source_without_rows_ends_even_if_it_is_to_begin_again():
    empty = PlayedInputs(inputs=[played("rig", [])], kind=EquipmentKind.REAL, length_ns=10)
    assert list(empty.rows()) == []


def test_signals_that_share_their_rows_go_together_and_bad_samples_have_no_value():
    rows = [
        (1, SourceRow(7, (1.5, True, (1.0, 2.0)), quality=(GOOD, GOOD, NO_SAMPLE))),
        (2, SourceRow(8, (None, None, (3.0, 4.0)), quality=(BAD, BAD, GOOD))),
    ]
    first, second = inputs.columns_of((FLOW, IS_OPEN, SPECTRUM), rows)
    assert first.time_ns.tolist() == [1, 2]
    assert first.quality == {"flow": [GOOD, BAD], "is open": [GOOD, BAD]}
    assert first.values["flow"][0] == 1.5
    assert np.isnan(first.values["flow"][1])
    assert first.values["is open"].tolist() == [True, False]
    assert second.time_ns.tolist() == [2]
    assert second.values["spectrum"].tolist() == [[3.0, 4.0]]


def test_a_row_without_qualities_is_good_where_it_has_values():
    (columns,) = inputs.columns_of((FLOW,), [(1, SourceRow(1, (2.0,))), (2, SourceRow(2, (None,)))])
    assert columns.quality == {"flow": [GOOD, BAD]}


def test_names_that_differ_from_the_bound_ones_are_refused():
    inputs.checked_names({"rig": 1}, {"rig": 2})
    with pytest.raises(Invalid, match="'rig' is bound to no stream"):
        inputs.checked_names({"rig": 1}, {})
    with pytest.raises(Invalid, match="'press' is played by nothing"):
        inputs.checked_names({}, {"press": 1})


def order(**fields):
    machine = {"simulator": "pump-rig", "seed": 3} | fields
    return source.from_document({"kind": "simulated", "inputs": {"rig": machine}})


def test_a_simulated_machine_has_the_rows_of_its_seed_and_parameters():
    first = simulated.inputs_of(order(period_s=0.5)).rows()
    again = simulated.inputs_of(order(period_s=0.5)).rows()
    rows = [next(first) for _ in range(5)]
    assert rows == [next(again) for _ in range(5)]
    assert rows[1][0] - rows[0][0] == 500_000_000
    assert {name for _, name, _ in rows} == {"rig"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"simulator": "pump-rigg"}, "no model 'pump-rigg'"),
        ({"parameters": {"weight": 1}}, "no parameter 'weight'"),
        ({"settings": {"weight": 1}}, "no input 'weight'"),
        ({"faults": [{"kind": "valv", "from_s": 1, "to_s": 2}]}, "no fault 'valv'"),
        ({"faults": [{"kind": "valve", "from_s": 2, "to_s": 1}]}, "from 2 to 1 s"),
    ],
)
def test_a_machine_that_its_model_cannot_be_is_refused(fields, words):
    with pytest.raises(Invalid, match=words):
        simulated.inputs_of(order(**fields))
