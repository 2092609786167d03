"""Options of `testbed simulate`: what they choose, and what is said of wrong ones."""

from io import StringIO

import pytest

from broker.errors import Invalid
from gateway.mapping import file as mapping_file
from simulators.catalogue import MODELS
from simulators.faults import Fault
from simulators.world import Playback
from testbed.commands import simulate
from testbed.simulator import first_mapping, listing, machine
from testbed.terminal.screen import Screen

URL = {"opcua": "opc.tcp://127.0.0.1:4840", "mqtt": "mqtt://127.0.0.1:1883"}


def options(**more):
    return machine.SimulatorOptions(port=0, playback=Playback(), **more)


def test_every_model_has_a_command():
    assert list(simulate.MODELS) == list(MODELS)


def test_a_model_is_chosen_with_its_parameters_inputs_and_faults():
    chosen = machine.model("press", ["heater=3.5", "ambient=15"], ["leak@60..90x0.5"])
    assert (chosen.inputs, chosen.parameters) == ({"heater": 3.5}, {"ambient": 15.0})
    assert chosen.faults == [Fault("leak", 60, 90, 0.5)]
    press = chosen.make(1, 2.0, 5, None)
    assert press.period_s == 2.0
    rows = list(press.rows())
    expected = MODELS["press"].make(
        seed=1, period_s=2.0, parameters={"ambient": 15}, inputs={"heater": 3.5}, count=5
    )
    assert rows == list(expected.rows())


@pytest.mark.parametrize(
    ("act", "said", "hint"),
    [
        (lambda: machine.model("pres", [], []), "no model 'pres'", "'press'"),
        (lambda: machine.model("press", ["heatr=1"], []), "input 'heatr'", "'heater'"),
        (lambda: machine.model("press", ["heater"], []), "no number, without =", "heater=0.5"),
        (lambda: machine.model("press", ["heater=x"], []), "gives heater no number", "heater=0.5"),
        (lambda: machine.model("press", [], ["lek@1..2"]), "'lek@1..2' is no fault", "'leak'?"),
        (
            lambda: machine.model("press", ["heater=60"], []).make(0, None, None, None),
            "input heater of press is 60 kW",
            "0 to 6 kW: power of the heater",
        ),
        (lambda: machine.broker_of("nowhere", "t"), "'nowhere' is not the address", "HOST:PORT"),
        (lambda: machine.broker_of("ada:secret@h:1", "t"), "is not the address", "PASSWORD"),
        (lambda: machine.broker_of("h:99999", "t"), "no URL", ""),
        (lambda: machine.broker_of("h:1", "a/#"), "topic 'a/#' is not one topic", "wildcards"),
        (
            lambda: options(broker=machine.broker_of("h:1", "t"), wait=True),
            "--mqtt does not go with --wait",
            "leave one of them out",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(act, said, hint):
    with pytest.raises(Invalid) as refused:
        act()
    assert said in str(refused.value)
    assert hint in (refused.value.hint or "")


def test_a_broker_may_have_a_user_and_a_scheme():
    broker = machine.broker_of("mqtt://ada@localhost:1884", "t")
    assert broker == machine.SensorsBroker("mqtt://localhost:1884", "ada", "t")
    assert machine.broker_of(None, "t") is None


@pytest.mark.parametrize("protocol", URL)
@pytest.mark.parametrize("info", MODELS.values(), ids=MODELS)
def test_the_mapping_of_a_model_can_be_read_and_has_all_that_is_known(info, protocol):
    broker = machine.broker_of("ada@h:1", "t") if protocol == "mqtt" else None
    chosen = options(object_name=info.object_name, stream=info.stream, broker=broker)
    text = first_mapping.mapping_text(chosen, info.signals, URL[protocol], 0.5)
    mapping = mapping_file.read(text, "m")
    assert mapping.equipment.equipment == info.name
    (stream,) = mapping.streams
    assert stream.spec.period_s == 0.5
    for signal, mapped in zip(info.signals, stream.spec.signals, strict=True):
        for name in ("name", "unit", "low", "high", "resolution", "description"):
            assert getattr(mapped, name) == getattr(signal, name)


def test_a_list_has_every_input_fault_and_parameter():
    text = StringIO()
    listing.print_models(listing.models(None), Screen(file=text, width=200))
    document = listing.as_json(listing.models(None))
    for info, item in zip(MODELS.values(), document["items"], strict=True):
        assert f"{info.name}: {info.description}" in text.getvalue()
        assert [each["kind"] for each in item["faults"]] == list(info.faults)
        for name in (*info.faults, *info.input_defaults, *(each.name for each in info.parameters)):
            assert f"\n    {name} " in text.getvalue()
