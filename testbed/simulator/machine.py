"""The machine of a command line: a model with what is set of it, a recording, or an FMU.

It loads no server, so that a wrong option is said at once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.errors import Invalid
from broker.settings import address_of
from broker.streams import Signal
from simulators import catalogue, replay
from simulators.faults import Fault
from simulators.fmu import description
from simulators.fmu.description import FmuDescription
from simulators.fmu.model import FmuModel
from simulators.model import ObjectNode
from simulators.models import pump_rig
from simulators.parameters import unknown
from simulators.replay import Recording
from simulators.stepped import ModelInfo, SteppedModel
from simulators.table_files import form as table_form
from simulators.world import Playback
from testbed.simulator.repeated import RepeatedSource

MQTT = "mqtt://"
MOST_ID = 40
_NO_ID = re.compile(r"[^a-z0-9]+")
_HOST_PORT = re.compile(r"(?:(?P<user>[^@/]+)@)?(?P<address>[^@/]+:\d+)/?")


@dataclass(frozen=True, slots=True)
class SensorsBroker:
    """The broker that a machine publishes to.  url: `mqtt://host:port`.  user: or empty."""

    url: str
    user: str
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """Options of a simulated machine.

    object_name, stream: the machine's name as a server's object, and the name of its stream.
    port: of its OPC UA server, 0 for a free one.  broker: where it publishes over MQTT, None for
    OPC UA.  wait: play only once every variable is monitored.  ledger: file for the rows that were
    offered.  keys: folder of its certificate, None for no security.  mapping: new file for the
    mapping of a gateway that reads it.  objects: of an OPC UA server, each with its own signals in
    the order of the source's; one with all signals if there are none.
    """

    object_name: str = "PumpRig"
    stream: str = "rig"
    port: int
    playback: Playback
    broker: SensorsBroker | None = None
    wait: bool = False
    ledger: Path | None = None
    keys: Path | None = None
    mapping: Path | None = None
    objects: tuple[ObjectNode, ...] = ()

    def __post_init__(self) -> None:
        if self.broker is not None and (self.wait or self.keys is not None):
            raise Invalid(
                f"--mqtt does not go with {'--wait' if self.wait else '--secure'}",
                hint="a broker does not say who has subscribed, and its listener has no TLS here;"
                " leave one of them out",
            )
        if self.mapping is not None and self.mapping.exists():
            raise Invalid(f"there is a file {self.mapping} already", hint="name a new one")


def model(name: str, assignments: Sequence[str], fault_texts: Sequence[str]) -> "ChosenModel":
    """A model with what was set of it; raises Invalid."""
    info = catalogue.model(name)
    parameters, inputs = _settings(info, assignments)
    faults = [Fault.parse(text, info.faults) for text in fault_texts]
    return ChosenModel(info, parameters, inputs, faults)


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model with its parameters, inputs and faults."""

    info: ModelInfo
    parameters: Mapping[str, float]
    inputs: Mapping[str, float]
    faults: Sequence[Fault]

    def make(
        self, seed: int, period_s: float | None, rows: int | None, fault_every_s: float | None
    ) -> SteppedModel:
        """Make it; rows: None for no end.  Raises Invalid."""
        return self.info.make(
            seed=seed,
            period_s=period_s,
            parameters=self.parameters,
            faults=self.faults,
            inputs=self.inputs,
            count=rows or 10**9,
            fault_every_s=fault_every_s,
        )


def recording(
    file: Path, *, columns: Path | None = None, repeat: bool = False
) -> Recording | RepeatedSource:
    """A recording, from the beginning again at its end if `repeat`; raises Invalid or Unknown.

    columns: file that says its form, None to guess it.
    """
    content = replay.read(file, None if columns is None else table_form.load(columns))
    return RepeatedSource(content, content.notes) if repeat else content


def object_of(signals: Sequence[Signal]) -> str:
    """The name of a recording's object: that of the rig for the signals that it has."""
    return "PumpRig" if tuple(signals) == pump_rig.SIGNALS else "Recording"


def fmu(file: Path, assignments: Sequence[str], period_s: float | None) -> FmuModel:
    """An FMU with what was set of it, of which nothing runs yet; raises Invalid or Unknown."""
    read = description.read(file)
    inputs = {signal.name for signal in read.input_signals}
    known = [*inputs, *(each.name for each in read.parameters)]
    values: dict[str, str] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if name not in known or not sign:
            raise unknown(f"{read.name} has no parameter or input {text[:200]!r}", name, known)
        values[name] = value
    return FmuModel(
        read,
        period_s=period_s,
        parameters={name: values[name] for name in values if name not in inputs},
        inputs={name: _number(name, values[name]) for name in inputs & values.keys()},
    )


def names_of(fmu: FmuDescription) -> tuple[str, str]:
    """Names of an FMU's machine as a server's object, and of its stream."""
    stream = _NO_ID.sub("-", fmu.identifier.lower()).strip("-")[:MOST_ID].strip("-") or "fmu"
    return "".join(part.capitalize() for part in stream.split("-")), stream


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise Invalid(f"--set {name}={text} is no number", hint=f"write {name}=0.5") from exc


def broker_of(text: str | None, topic: str) -> SensorsBroker | None:
    """The broker of `[mqtt://][user@]host:port`, None for None; raises Invalid."""
    if text is None:
        return None
    match = _HOST_PORT.fullmatch(text.removeprefix(MQTT))
    if match is None or ":" in (match["user"] or ""):
        raise Invalid(
            f"{text!r} is not the address of a broker",
            hint="write --mqtt HOST:PORT or --mqtt USER@HOST:PORT, and the password in"
            " TESTBED_SOURCE_PASSWORD",
        )
    url = f"{MQTT}{match['address']}"
    try:
        address_of(url)
    except ValueError as exc:
        raise Invalid(f"--mqtt: {exc}") from exc
    if not topic or any(sign in topic for sign in "+#\0"):
        raise Invalid(f"topic {topic!r} is not one topic", hint="no wildcards: + and #")
    return SensorsBroker(url, match["user"] or "", topic)


def _settings(
    info: ModelInfo, assignments: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Parameters and inputs of `name=value`s; raises Invalid for a wrong one."""
    known = [each.name for each in info.parameters] + list(info.input_defaults)
    values: dict[str, float] = {}
    for text in assignments:
        name, sign, number = text.partition("=")
        if name not in known:
            raise unknown(f"{info.name} has no parameter or input {name!r}", name, known)
        try:
            values[name] = float(number)
        except ValueError as exc:
            missing = "" if sign else ", without ="
            raise Invalid(
                f"--set {text!r} gives {name} no number{missing}", hint=f"write {name}=0.5"
            ) from exc
    inputs = {name: value for name, value in values.items() if name in info.input_defaults}
    return {name: values[name] for name in values.keys() - inputs.keys()}, inputs
