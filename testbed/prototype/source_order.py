"""Decides what plays the inputs of a deployment: the scenario of its project, or a recording."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.clock import NS_PER_S
from broker.deployments import bindings
from broker.deployments.life import DeploymentStage
from broker.deployments.source import (
    PlannedFault,
    RecordedOrder,
    SimulatedInput,
    SimulatedOrder,
)
from broker.errors import Invalid, Unknown
from broker.namespace import StreamAddress
from broker.prototypes.manifest import PrototypeManifest
from broker.responses.recordings import RecordingResponse
from simulators import catalogue
from testbed.client import server_recordings
from testbed.client.server_recordings import PREFIX
from testbed.scenario import equipment
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.plan import RunPlan
from testbed_scenarios.model import ModelEquipment
from testbed_scenarios.timeline_model import ModelFault


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoice:
    """The choices of the caller about what plays the inputs.

    simulators: `INPUT=MODEL`.  recording: `12` or `server:12`, on the server.  streams:
    `INPUT=STREAM`, of the recording.
    """

    simulators: Sequence[str] = ()
    recording: str | None = None
    streams: Sequence[str] = ()
    speed: float = 1.0
    repeat: bool = False

    @property
    def recording_number(self) -> int:
        """The number of the recording on the server; raises Invalid for none."""
        if self.recording is None:
            raise Invalid(
                "a recorded prototype needs a recording on the server",
                hint="testbed recording create NAME --on-server --stream …, then --recording"
                " NUMBER",
            )
        is_named = self.recording.startswith(PREFIX)
        text = self.recording if is_named else f"{PREFIX}{self.recording}"
        return server_recordings.on_the_server(text)

    def check(self, stage: DeploymentStage) -> None:
        """Raise Invalid for choices that are of another stage."""
        of_stage = {
            "--simulator": (DeploymentStage.SIMULATED, self.simulators),
            "--recording": (DeploymentStage.RECORDED, self.recording),
            "--stream": (DeploymentStage.RECORDED, self.streams),
            "--repeat": (DeploymentStage.RECORDED, self.repeat),
        }
        for option, (own, value) in of_stage.items():
            if value and stage is not own:
                raise Invalid(f"{option} is of the {own} stage", hint="leave it out")
        if stage is DeploymentStage.LIVE and self.speed != 1:
            raise Invalid("--speed: a machine is as fast as it is", hint="leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChoice:
    """The machines that play a prototype, and sentences about what they leave out."""

    order: SimulatedOrder
    left_out: Sequence[str] = field(default=())


def simulated(
    manifest: PrototypeManifest, scenario: LoadedScenario | None, choice: SourceChoice
) -> SimulatedChoice:
    """The machines of the scenario that the prototype reads there, or those that were chosen.

    Raises Invalid for an input that nothing plays.
    """
    named = _pairs(choice.simulators, manifest.inputs, "--simulator")
    machines: dict[str, SimulatedInput] = {}
    left_out: dict[str, None] = {}
    for name in manifest.inputs:
        if name in named:
            machines[name] = SimulatedInput(simulator=catalogue.model(named[name]).name)
        elif scenario is not None:
            machines[name] = _of_scenario(name, manifest, scenario, left_out)
        else:
            raise Invalid(
                f"nothing plays the input {name!r}: there is no scenario beside the manifest",
                hint=f"name a machine: --simulator {name}=pump-rig; `testbed simulate list` has"
                " them",
            )
    order = SimulatedOrder(inputs=machines, speed=choice.speed)
    return SimulatedChoice(order=order, left_out=tuple(left_out))


def _of_scenario(
    name: str, manifest: PrototypeManifest, loaded: LoadedScenario, left_out: dict[str, None]
) -> SimulatedInput:
    """The machine that plays an input in the scenario; left_out: gets sentences."""
    scenario = loaded.scenario
    stream = str(scenario.prototypes[manifest.name].inputs[name])
    part = scenario.equipment.get(stream)
    if not isinstance(part, ModelEquipment):
        raise Invalid(
            f"a site cannot play the input {name!r} as the scenario does, by {stream!r}",
            hint="it plays models of the catalogue and recordings on the server: name a machine"
            f" with --simulator {name}=pump-rig, or deploy --stage recorded",
        )
    plan = RunPlan(scenario=scenario, base=loaded.path.parent, folder=loaded.path.parent)
    fed = [key for key, value in part.inputs.items() if isinstance(value, str)]
    if fed:
        left_out[f"nothing feeds {', '.join(fed)} of {stream}: there is no control yet"] = None
    return SimulatedInput(
        simulator=part.model,
        parameters={key: amount.number for key, amount in part.parameters.items()},
        settings={key: float(part.inputs[key]) for key in part.inputs.keys() - set(fed)},
        seed=equipment.seed_of(plan, stream),
        period_s=equipment.period_ns(part) / NS_PER_S,
        faults=tuple(_faults(plan, stream, left_out)),
    )


def _faults(plan: RunPlan, machine: str, left_out: dict[str, None]) -> Iterator[PlannedFault]:
    """The faults of a machine that its model plays; left_out: gets a sentence about other ones."""
    for entry in plan.timeline():
        if not isinstance(entry, ModelFault):
            left_out["faults of sensors and links, and events, of the scenario are not played"] = (
                None
            )
        elif entry.on == machine:
            yield PlannedFault(
                kind=entry.fault,
                from_s=entry.from_ns / NS_PER_S,
                to_s=entry.to_ns / NS_PER_S,
                severity=entry.severity,
            )


def recorded(
    inputs: Mapping[str, Sequence[StreamAddress]],
    recording: RecordingResponse,
    choice: SourceChoice,
) -> RecordedOrder:
    """The streams of a recording that play the inputs; raises Invalid where none does.

    inputs: name -> streams, of which the first that the recording has plays it, unless another one
    was chosen, or the recording has one alone.
    """
    streams = [StreamAddress.parse(each.stream) for each in recording.streams]
    named = _pairs(choice.streams, inputs, "--stream")
    played = {}
    for name, usual in inputs.items():
        candidates = [StreamAddress.parse(named[name])] if name in named else usual
        fitting = [each for each in candidates if each in streams]
        if not fitting and name not in named and len(streams) == 1:
            fitting = streams
        if not fitting:
            has = ", ".join(map(str, streams))
            raise Invalid(
                f"recording {recording.id} has no stream {candidates[0]} for the input {name!r}",
                hint=f"it has {has}: choose one with --stream {name}=…",
            )
        played[name] = fitting[0]
    return RecordedOrder(
        recording=recording.id, streams=played, speed=choice.speed, repeat=choice.repeat
    )


def usual_streams(
    manifest: PrototypeManifest, organisation: str
) -> Mapping[str, Sequence[StreamAddress]]:
    """The streams that a recording for a prototype has: of its manifest, or its simulated trial."""
    trial = bindings.bound_inputs(
        organisation, manifest.name, DeploymentStage.SIMULATED, manifest.inputs
    )
    return {name: (address, trial[name]) for name, address in manifest.inputs.items()}


def chosen(
    simulators: Sequence[str] | None,
    recording: Path | None,
    streams: Sequence[str] | None,
    *,
    speed: float,
    repeat: bool,
) -> SourceChoice:
    """The choices of a command line; None for an option that is not there."""
    return SourceChoice(
        simulators=simulators or (),
        recording=None if recording is None else str(recording),
        streams=streams or (),
        speed=speed,
        repeat=repeat,
    )


def _pairs(texts: Sequence[str], inputs: Mapping[str, object], option: str) -> dict[str, str]:
    """The values of `INPUT=VALUE`s by input; raises Invalid, or Unknown for no input."""
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise Invalid(f"{option} {text!r} names nothing", hint=f"write {option} INPUT=…")
        if name not in inputs:
            known = ", ".join(inputs) or "none"
            raise Unknown(f"the manifest has no input {name!r}", hint=f"it has {known}")
        pairs[name] = value
    return pairs
