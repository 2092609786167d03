"""Laws of reading a scenario file: whatever it holds, it is read or refused at places in it."""

import re
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Invalid
from broker.streams import Signal
from testbed_scenarios import file, matrix, timeline
from testbed_scenarios.catalogue import Catalogue, EquipmentFacts, ParameterFacts
from testbed_scenarios.model import Scenario

CATALOGUE = Catalogue(
    models={
        "pump-rig": EquipmentFacts(
            signals=(Signal("Pressure", unit="bar"),),
            inputs={"opening": ParameterFacts(default=1.0, low=0.0, high=1.0)},
            parameters={"shut_opening": ParameterFacts(low=0.0, high=1.0)},
            faults={"valve": "it closes", "bearing": "it wears"},
            period_ns=10**9,
        )
    }
)
MISTAKE = re.compile(r"  f:([1-9]\d*):([1-9]\d*): .+")
WORDS = st.sampled_from(
    [
        *("scenario", "duration", "equipment", "rig", "model", "pump-rig", "period", "timeline"),
        *("fault", "valve", "stuck", "delay", "on", "from", "to", "by", "draw", "every", "at"),
        *("prototypes", "command", "inputs", "outputs", "expectations", "signal", "always", "is"),
        *("rig/Pressure", "detector/score", "a.b:c", "1s", "10min", "20s..60s", "1..10", "5 %"),
        *(
            "sweep",
            "equipment.rig.parameters.shut_opening",
            "0.5",
            "2 bar",
            "true",
            "",
            "-1",
            "9e9",
        ),
    ]
)
VALUES = st.recursive(
    WORDS | st.none() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
GOOD: dict[str, Any] = {
    "scenario": "a",
    "duration": "10min",
    "equipment": {"rig": {"model": "pump-rig", "parameters": {"shut_opening": "0.5"}}},
    "timeline": [
        {"fault": "valve", "on": "rig", "from": "1s", "to": "2s"},
        {"fault": "drift", "on": "rig/Pressure", "from": "1s", "to": "2s", "by": "1"},
        {"draw": ["bearing"], "on": "rig", "every": "1min", "lasting": "1s..2s"},
        {"set": "rig/opening", "at": "5s", "value": "0.5"},
    ],
    "prototypes": {"detector": {"command": "x", "inputs": {"rig": "rig"}, "outputs": ["score"]}},
    "expectations": [
        {"signal": "detector/score/a", "eventually": {"is": "true"}, "after": {"fault": "valve"}},
        {"stream": "rig", "count": {"at_least": "5"}},
    ],
    "sweep": {"equipment.rig.parameters.shut_opening": ["0.5", "0.6"]},
    "seeds": "1..3",
}


@st.composite
def spoilt(draw: st.DrawFn, value: Any = GOOD) -> Any:
    """A good document in which one part is another value, is away, or has another name."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    at = draw(st.sampled_from(keys))
    changed = value.copy()
    match draw(st.integers(0, 4)):
        case 0:
            del changed[at]
        case 1 if isinstance(value, dict):
            changed[draw(WORDS)] = changed.pop(at)
        case _:
            changed[at] = draw(spoilt(value[at]))
    return changed


@given(spoilt())
def test_a_document_is_read_or_every_mistake_has_a_place_in_it(document):
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    message = refusal(text)
    if message == "":
        return
    first, *lines = message.splitlines()
    places = [MISTAKE.fullmatch(line) for line in lines]
    assert all(places) if places else first.startswith("f:1:1: a scenario file holds fields")
    last = max((int(place[1]) for place in places), default=1)
    assert last <= max(1, len(text.splitlines()))


def refusal(text: str) -> str:
    """The message about a text, empty if it is a scenario whose runs can be planned."""
    try:
        scenario = file.checked(file.read(text, "f"), CATALOGUE)
    except Invalid as exc:
        return exc.message
    assert Scenario.from_document(scenario.to_document()) == scenario
    for run in matrix.variants(scenario):
        timeline.planned(run.scenario, run.seed)
    return ""
