"""The plan of a demo: which machine is played, how fast, into which store, for which prototype."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Signal

SPACE = "run-demo"
RIG = StreamAddress("factory", "pump-rig", "rig")
SCORE = StreamAddress("company", "detector", "score")
"""The output of the prototype, whichever program it is."""
VISITOR = StreamAddress("company", "visitor", "score")
"""The stream that a visitor may publish while a demo is kept running."""
ANOMALY = "anomaly"
"""The signal of SCORE that is compared with the truth."""
PERIOD_S = 1.0
ROWS = 800
SEED = 7
FAULT_KIND = "valve"
FAULT_SPAN_S = (520, 660)
"""The fault of the model with the seed SEED, in s; another seed has it at another time."""
MODEL_SPEED = 80.0
TRY_SPEED = 160.0
"""Speed of the model where nobody watches it: still far below what gateway and model can do."""
LONGEST_RECORDING_S = 25.0
DETECTOR_LEARNS_ROWS = 400
"""Rows that the example detector learns from, without an answer for them."""
FAULT_EVERY_S = 30.0
"""Seconds in which the model that is kept running has one fault."""
LEAST_FAULT_EVERY_S = 1_200.0
"""The same in the rig's time, at least: a detector learns from healthy rows before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """The settings of a demo.

    folder: for data, logs and the report.  data: recording to play, None for the model of a pump
    rig.  report: file of the report, None for one in the folder.  speed: source seconds in a
    second, None until `prepared` has chosen it, for the model `model_speed`.  times: time stamps of
    a recording, `original` or `shifted`.  store: as for `testbed up`.  prototype: words of a
    visitor's command that runs in the detector's place, none for the detector.  min_f1: smallest F1
    that counts as reached, None for any.  columns: file that says the recording's form, None to
    guess it.  signals, period_s, notes: of the machine, once `prepared`.  seed: of the model's
    noise, and of the time of its fault.  fault_kind: `valve`, `cavitation` or `bearing`.
    """

    folder: Path
    data: Path | None = None
    columns: Path | None = None
    report: Path | None = None
    speed: float | None = None
    model_speed: float = MODEL_SPEED
    times: str = "original"
    store: str = "duckdb"
    prototype: tuple[str, ...] = ()
    min_f1: float | None = None
    seed: int = SEED
    fault_kind: str = FAULT_KIND
    signals: tuple[Signal, ...] = ()
    period_s: float = PERIOD_S
    notes: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """The fault of the model, as `testbed simulate --fault` takes it."""
        begin_s, end_s = FAULT_SPAN_S
        if self.seed != SEED:
            random = Random(self.seed)  # noqa: S311 - where a fault lies is no secret
            begin_s = random.randrange(DETECTOR_LEARNS_ROWS + 20, 620)
            end_s = begin_s + random.randrange(60, 160)
        return f"{self.fault_kind}@{begin_s}..{end_s}"

    @property
    def learns_rows(self) -> int:
        """Number of first rows that the prototype is known to give no answer for."""
        return 0 if self.prototype else DETECTOR_LEARNS_ROWS

    @property
    def fault_every_s(self) -> float:
        """Time of the rig in which the model that is kept running has one fault."""
        return max(FAULT_EVERY_S * (self.speed or self.model_speed), LEAST_FAULT_EVERY_S)

    @property
    def report_file(self) -> Path:
        """The file that the report is written to."""
        return self.report or self.folder / "report.html"

    def prepared(self) -> "DemoPlan":
        """The plan with a speed: the given one, or one that plays a recording in 25 s at most.

        Raises Unknown or Invalid for a recording that cannot be played, or that has no fault to
        compare with where `min_f1` is set; Invalid for a fault that is none, and for a seed or
        fault beside a recording.
        """
        if self.data is None:
            from simulators.faults import Fault  # noqa: PLC0415 - as below
            from simulators.models import pump_rig  # noqa: PLC0415 - likewise

            Fault.parse(self.fault, pump_rig.FAULTS)
            return replace(self, speed=self.speed or self.model_speed, signals=pump_rig.SIGNALS)
        if (self.seed, self.fault_kind) != (SEED, FAULT_KIND):
            raise Invalid(
                f"{self.data} has rows and faults of its own",
                hint="leave --seed and --fault out, which are of the model of a pump rig",
            )
        from simulators import replay  # noqa: PLC0415 - the help of a command needs no numpy
        from simulators.table_files import form as table_form  # noqa: PLC0415 - likewise

        form = None if self.columns is None else table_form.load(self.columns)
        recording = replay.read(self.data, form)
        rows = recording.content
        if self.min_f1 is not None and not any(row.anomaly for row in rows):
            raise Invalid(
                f"{self.data} labels no row as an anomaly, so there is no F1 to reach",
                hint="leave --min-f1 out, or play a recording with a column anomaly",
            )
        duration_s = (rows[-1].time_ns - rows[0].time_ns) / 1e9
        return replace(
            self,
            speed=self.speed or max(1.0, duration_s / LONGEST_RECORDING_S),
            signals=recording.signals,
            period_s=duration_s / max(1, len({row.time_ns for row in rows}) - 1) or PERIOD_S,
            notes=recording.notes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The addresses and credentials of a running demo.

    api, broker, machine: URLs.  owner, company: credentials of the owners of the factory and of the
    company.  credentials: of the machines, by principal.
    """

    plan: DemoPlan
    api: str
    broker: str
    machine: str
    owner: str
    company: str
    credentials: Mapping[str, str]

    @property
    def observer(self) -> str:
        """The credential that reads the rig's stream, the prototype's and the visitor's."""
        return self.credentials["observer"]

    @property
    def visitor(self) -> str:
        """The credential that reads the rig's stream, and publishes the visitor's."""
        return self.credentials["visitor"]
