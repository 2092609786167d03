"""The plan of a demo: which machine is played, how fast and into which store, and fixed names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from broker.namespace import StreamAddress

SPACE = "run-demo"
RIG = StreamAddress("factory", "pump-rig", "rig")
SCORE = StreamAddress("company", "detector", "score")
PERIOD_S = 1.0
ROWS = 800
FAULT = "valve@520..660"
MODEL_SPEED = 40.0
LONGEST_RECORDING_S = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """The settings of a demo.

    folder: for data, logs and the report.  data: recording to play, None for the model of a pump
    rig.  report: file of the report, None for one in the folder.  speed: source seconds in a
    second, None until `with_speed` has chosen it.  times: time stamps of a recording, `original` or
    `shifted`.  store: as for `testbed up`.
    """

    folder: Path
    data: Path | None = None
    report: Path | None = None
    speed: float | None = None
    times: str = "original"
    store: str = "duckdb"

    @property
    def report_file(self) -> Path:
        """The file that the report is written to."""
        return self.report or self.folder / "report.html"

    def with_speed(self) -> "DemoPlan":
        """The plan with a speed: the given one, or one that plays a recording in 25 s at most."""
        if self.speed is not None:
            return self
        if self.data is None:
            return replace(self, speed=MODEL_SPEED)
        from simulators import replay  # noqa: PLC0415 - read here only to know how long it is

        rows = replay.read(self.data).content
        duration_s = (rows[-1].time_ns - rows[0].time_ns) / 1e9
        return replace(self, speed=max(1.0, duration_s / LONGEST_RECORDING_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The addresses and credentials of a running demo.

    api, broker, machine: URLs.  owner: the factory owner's credential.  credentials: of the
    machines, by principal.
    """

    plan: DemoPlan
    api: str
    broker: str
    machine: str
    owner: str
    credentials: Mapping[str, str]

    @property
    def observer(self) -> str:
        """The credential that reads both streams."""
        return self.credentials["observer"]
