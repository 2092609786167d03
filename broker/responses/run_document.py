"""The record of a run as JSON: inputs, verdict and data hashes.

The command that ran a scenario hands it over; the API keeps it unchanged and gives it back.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from broker.responses.base import AT, LATER, ApiResponse

VERSION = 1
"""Version of the record's form; one that the testbed does not know is refused."""
MOST_SCENARIO = 4 * 1024 * 1024
"""Characters of a scenario file in a record."""
MOST_GAPS = 100
"""Gaps of a stream that a record lists; it counts those that it leaves out."""
MOST_SETTINGS = 2_000
"""Fields of a scenario that a record lists; the hash of the scenario stands for all."""
MOST_PARTS = 10_000
"""Streams, expectations or others of a kind in a record."""
MOST_SENTENCE = 4_000
MOST_WORDS = 400
SCENARIO = "scenario: valve-closes\nduration: 60s\nequipment: {rig: {model: pump-rig}}\n"
"""The scenario of the example."""
_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def sha256_of(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


class RunPart(ApiResponse):
    """A part of the record of a run: without unknown fields, and without NaN or infinities."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[_HASH])]
Words = Annotated[str, Field(max_length=MOST_WORDS)]
Sentence = Annotated[str, Field(max_length=MOST_SENTENCE)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Moment = Annotated[
    str,
    Field(max_length=40, description="RFC 3339 in UTC, with nanoseconds", examples=[AT]),
]
Scalar = float | bool | Words | None
Source = Literal["simulated", "recorded", "live"]


class ScenarioOfRun(RunPart):
    """The scenario file that was run, with a hash of its text."""

    name: Annotated[Words, Field(min_length=1, examples=["valve-closes"])]
    text: Annotated[str, Field(max_length=MOST_SCENARIO, examples=[SCENARIO])]
    sha256: Annotated[Sha256, Field(examples=[sha256_of(SCENARIO)])]


class FileOfRun(RunPart):
    """A file that an equipment of the scenario needed, such as a recording or an FMU."""

    equipment: Annotated[Words, Field(examples=["rig"])]
    path: Annotated[
        Words, Field(description="as the scenario file names it", examples=["valve1.csv"])
    ]
    sha256: Sha256


class CodeOfRun(RunPart):
    """A program under test: a file of it, its whole project, or the image that it is."""

    prototype: Annotated[Words, Field(examples=["detector"])]
    kind: Annotated[Literal["file", "project", "image"], Field(examples=["file"])]
    name: Annotated[
        Words,
        Field(
            description="path of the file, manifest of the project, or name of the image",
            examples=["detector.py"],
        ),
    ]
    sha256: Annotated[
        Sha256, Field(description="of the file; the digest of the packed project or of the image")
    ]


class GapOfRun(RunPart):
    """A stated gap of a stream; no signals means all of them."""

    signals: Annotated[list[Words], Field(max_length=MOST_PARTS, examples=[["Pressure"]])]
    from_: Annotated[Moment, Field(alias="from")]
    to: Annotated[Moment, Field(examples=[LATER])]
    cause: Annotated[Words, Field(examples=["network"])]


class StreamOfRun(RunPart):
    """A stream of a run: the number of its samples, one hash over them, and its gaps."""

    name: Annotated[Words, Field(description="as the scenario names it", examples=["rig"])]
    by: Annotated[Literal["equipment", "prototype"], Field(examples=["equipment"])]
    source: Annotated[
        Source,
        Field(description="of a prototype's output: that of what it read", examples=["simulated"]),
    ]
    samples: Annotated[Count, Field(examples=[4_800])]
    sha256: Sha256
    first: Annotated[Moment | None, Field(examples=[AT])] = None
    last: Annotated[Moment | None, Field(examples=[LATER])] = None
    gaps: Annotated[list[GapOfRun], Field(max_length=MOST_GAPS)]
    gaps_left_out: Annotated[Count, Field(examples=[0])]


class SamplesUsed(RunPart):
    """The samples that a figure was computed from: signals of a stream over a span."""

    stream: Annotated[Words, Field(examples=["rig"])]
    signals: Annotated[
        list[Words],
        Field(max_length=MOST_PARTS, description="empty means all", examples=[["Pressure"]]),
    ]
    from_: Annotated[Moment, Field(alias="from")]
    to: Annotated[Moment, Field(examples=[LATER])]
    samples: Annotated[Count, Field(examples=[60])]
    sha256: Annotated[Sha256, Field(description="of exactly these samples")]


class SpanOfRun(RunPart):
    """A span of a run: its beginning is included, its end is not."""

    from_: Annotated[Moment, Field(alias="from")]
    to: Annotated[Moment, Field(examples=[LATER])]


class TruthOfRun(RunPart):
    """The known faults of an equipment: how many there were, and a hash over them."""

    equipment: Annotated[Words, Field(examples=["rig"])]
    faults: Annotated[Count, Field(examples=[1])]
    sha256: Sha256


class ExpectationOfRun(RunPart):
    """The result of one expectation, with the samples that it was computed from."""

    name: Annotated[Words, Field(examples=["the valve is noticed"])]
    kind: Annotated[Words, Field(description="word of the file", examples=["detection"])]
    subject: Annotated[Words, Field(examples=["detector/score/anomaly"])]
    passed: Annotated[bool, Field(examples=[True])]
    sentence: Annotated[Sentence, Field(examples=["f1 0.9"])]
    robustness: Annotated[float | None, Field(examples=[0.1])] = None
    unit: Annotated[Words, Field(description="of the robustness", examples=["1"])]
    observed: Annotated[
        dict[Words, Scalar],
        Field(max_length=50, description="figures by name", examples=[{"f1": 0.9}]),
    ]
    violation: Annotated[SpanOfRun | None, Field(examples=[None])] = None
    unknown_s: Annotated[
        float, Field(ge=0, description="time of which nothing is known", examples=[0.0])
    ]
    samples: Annotated[list[SamplesUsed], Field(max_length=10)]
    truth: Annotated[
        Words | None, Field(description="equipment whose faults it is about", examples=["rig"])
    ] = None
    measurements: Annotated[
        Count | None,
        Field(description="of resources; null for an expectation on samples", examples=[None]),
    ] = None


class ResourcesOfRun(RunPart):
    """The resources that a prototype took: mean of a core, greatest memory and time to answer."""

    prototype: Annotated[Words, Field(examples=["detector"])]
    measurements: Annotated[Count, Field(examples=[31])]
    cpu: Annotated[float, Field(ge=0, description="share of a core", examples=[0.12])]
    memory_bytes: Annotated[float, Field(ge=0, examples=[61e6])]
    lag_s: Annotated[float, Field(ge=0, examples=[0.04])]


class ClockOfRun(RunPart):
    """The run's time: virtual or wall time, and how fast it went."""

    is_virtual: Annotated[bool, Field(alias="virtual", examples=[True])]
    start: Annotated[Moment, Field(description="in the run's time")]
    end: Annotated[Moment, Field(description="where the run came to", examples=[LATER])]
    quantum_s: Annotated[float, Field(gt=0, examples=[1.0])]
    quanta: Annotated[Count, Field(examples=[60])]
    speed: Annotated[
        float | None,
        Field(gt=0, description="wanted speed at wall time; null in virtual time", examples=[None]),
    ] = None
    reached_speed: Annotated[
        float, Field(ge=0, description="seconds of the run in a real one", examples=[121.5])
    ]
    run_s: Annotated[float, Field(ge=0, description="length in the run's time", examples=[60.0])]
    started_s: Annotated[float, Field(ge=0, description="real time until it began", examples=[1.4])]
    wall_s: Annotated[float, Field(ge=0, description="real time of the whole", examples=[2.1])]
    quanta_s: Annotated[float, Field(ge=0, description="real time of the quanta", examples=[0.5])]
    waited_for: Annotated[
        dict[Words, Count],
        Field(max_length=MOST_PARTS, description="quanta by member", examples=[{"detector": 60}]),
    ]


class RunDocument(RunPart):
    """The record of one run of a scenario.  It never changes: `sha256` of a run is over it."""

    v: Annotated[Literal[1], Field(description="version of this form", examples=[VERSION])]
    scenario: ScenarioOfRun
    label: Annotated[
        Words, Field(description="tells it from others of a matrix", examples=["seed 7"])
    ]
    values: Annotated[
        dict[Words, Scalar],
        Field(max_length=100, description="swept values by their path", examples=[{}]),
    ]
    settings: Annotated[
        dict[Words, Scalar],
        Field(
            max_length=MOST_SETTINGS,
            description="fields of the scenario as it was run, by their path",
            examples=[{"equipment.rig.model": "pump-rig"}],
        ),
    ]
    seed: Annotated[Count, Field(examples=[7])]
    space: Annotated[Words, Field(examples=["run-valve-closes-7"])]
    clock: ClockOfRun
    began: Moment
    ended: Annotated[Moment, Field(examples=[LATER])]
    passed: Annotated[bool, Field(examples=[True])]
    incidents: Annotated[
        list[Sentence],
        Field(max_length=100, description="other reasons to fail", examples=[[]]),
    ]
    expectations: Annotated[list[ExpectationOfRun], Field(max_length=MOST_PARTS)]
    samples_sha256: Annotated[Sha256, Field(description="of all samples of the run")]
    streams: Annotated[list[StreamOfRun], Field(max_length=MOST_PARTS)]
    truth: Annotated[list[TruthOfRun], Field(max_length=MOST_PARTS)]
    resources: Annotated[list[ResourcesOfRun], Field(max_length=MOST_PARTS)]
    files: Annotated[list[FileOfRun], Field(max_length=MOST_PARTS)]
    code: Annotated[list[CodeOfRun], Field(max_length=100)]
    versions: Annotated[
        dict[Words, Words],
        Field(max_length=100, description="by package", examples=[{"testbed": "0.1.0"}]),
    ]
    lock_sha256: Annotated[
        Sha256, Field(description="of all installed packages with their versions")
    ]
    architecture: Annotated[Words, Field(examples=["linux x86_64"])]
