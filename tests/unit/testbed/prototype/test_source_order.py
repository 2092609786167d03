"""What plays the inputs of a deployment, as the files of its project and the caller say it."""

import shutil

import pytest

from broker.clock import WallClock
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid, Refused, Unknown
from broker.namespace import StreamAddress
from broker.responses.recordings import RecordingResponse, StreamOfRecordingResponse
from testbed.prototype import project, source_order
from testbed.prototype.source_order import SourceChoice
from tests.sources import ROOT

DETECTOR = ROOT / "examples/prototypes/anomaly-detector"
RIG = StreamAddress.parse("factory/pump-rig/rig")
TRIAL = "company/anomaly-detector-simulated/rig"


def loaded(tmp_path, *changes):
    """The example's project, with words of its scenario changed."""
    folder = shutil.copytree(DETECTOR, tmp_path / "project")
    scenario = folder / "scenario.yaml"
    text = scenario.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    scenario.write_text(text)
    return project.load(folder, WallClock())


def simulated(read, **choices):
    return source_order.simulated(read.manifest, read.scenario, SourceChoice(**choices))


def test_a_site_plays_the_machine_of_the_scenario_with_its_faults(tmp_path):
    model = "{model: pump-rig, period: 500ms, parameters: {ambient: 30 Cel}, inputs: {speed: 0.9}}"
    choice = simulated(loaded(tmp_path, ("{model: pump-rig}", model)), speed=2.0)
    rig = choice.order.inputs["rig"]
    assert (rig.simulator, rig.period_s, choice.order.speed) == ("pump-rig", 0.5, 2.0)
    assert (rig.parameters, rig.settings) == ({"ambient": 30.0}, {"speed": 0.9})
    assert [(each.kind, each.from_s, each.to_s) for each in rig.faults] == [
        ("valve", 120.0, 180.0),
        ("bearing", 300.0, 360.0),
    ]
    assert choice.left_out == ()


def test_what_a_site_cannot_play_of_a_scenario_is_said(tmp_path):
    fault = "timeline:\n  - {fault: cut, on: rig, from: 1min, to: 2min}"
    choice = simulated(loaded(tmp_path, ("timeline:", fault)))
    assert choice.left_out == (
        "faults of sensors and links, and events, of the scenario are not played",
    )
    assert len(choice.order.inputs["rig"].faults) == 2


def test_a_machine_that_was_chosen_goes_before_that_of_the_scenario(tmp_path):
    read = loaded(tmp_path)
    order = simulated(read, simulators=["rig=press"]).order
    assert order.inputs["rig"].simulator == "press"
    for chosen, error, words in (
        ("rig=pres", Invalid, "no model 'pres'"),
        ("rigg=press", Unknown, "no input 'rigg'"),
        ("rig", Invalid, "names nothing"),
    ):
        with pytest.raises(error, match=words):
            simulated(read, simulators=[chosen])


def test_an_input_that_nothing_plays_is_refused(tmp_path):
    manifest = loaded(tmp_path).manifest
    with pytest.raises(Invalid, match="no scenario beside the manifest"):
        source_order.simulated(manifest, None, SourceChoice())


def recording(*streams):
    named = [StreamOfRecordingResponse.example() | {"stream": each} for each in streams]
    return RecordingResponse.model_validate(RecordingResponse.example() | {"streams": named})


@pytest.mark.parametrize(
    ("streams", "chosen", "played"),
    [
        ([str(RIG), "factory/press/rig"], [], str(RIG)),
        ([TRIAL, "company/press/strokes"], [], TRIAL),
        (["company/other/rig"], [], "company/other/rig"),
        ([str(RIG), "factory/press/rig"], ["rig=factory/press/rig"], "factory/press/rig"),
    ],
)
def test_an_input_is_played_by_its_stream_that_of_its_trial_the_only_one_or_a_chosen_one(
    streams, chosen, played, tmp_path
):
    usual = source_order.usual_streams(loaded(tmp_path).manifest, "company")
    order = source_order.recorded(usual, recording(*streams), SourceChoice(streams=chosen))
    assert str(order.streams["rig"]) == played


def test_a_recording_without_a_stream_for_an_input_is_refused(tmp_path):
    usual = source_order.usual_streams(loaded(tmp_path).manifest, "company")
    both = recording("a/b/c", "a/b/d")
    for chosen in ([], [f"rig={RIG}"]):
        with pytest.raises(Invalid, match=f"no stream {RIG} for the input 'rig'"):
            source_order.recorded(usual, both, SourceChoice(streams=chosen))


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        ("live", {"simulators": ["rig=press"]}),
        ("recorded", {"simulators": ["rig=press"]}),
        ("simulated", {"recording": "3"}),
        ("live", {"repeat": True}),
        ("live", {"speed": 2.0}),
    ],
)
def test_a_choice_of_another_stage_is_refused(stage, fields):
    with pytest.raises(Invalid):
        SourceChoice(**fields).check(DeploymentStage(stage))


def test_a_recording_is_named_by_its_number():
    assert SourceChoice(recording="12").recording_number == 12
    assert SourceChoice(recording="server:12").recording_number == 12
    for text in (None, "valve-1", "server:x"):
        with pytest.raises(Refused):
            _ = SourceChoice(recording=text).recording_number
