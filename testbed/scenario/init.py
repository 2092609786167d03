"""Writes a first scenario: a machine, a fault, a small prototype, and what is expected of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broker import namespace
from broker.clock import NS_PER_S, Clock
from broker.errors import Invalid, Taken
from broker.streams import Dtype, Signal
from simulators import catalogue, replay
from testbed.scenario import whole_file

SCHEMA_LINE = "# yaml-language-server: $schema={}\n"
SCHEMA_FILE = "scenario.schema.json"
LEARNS_S = 60
"""Seconds that the prototype learns from."""
DURATION_S, FAULT_S = 300, (120, 180)

PROTOTYPE = '''"""A first prototype: it learns what is usual of a signal, and alarms far from it."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

SIGNAL = {signal!r}
LEARNS_ROWS = {rows}
LIMIT = 6.0  # standard deviations from the mean


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", [Signal("score"), Signal("anomaly", Dtype.BOOL)])
        usual = np.empty(0)
        async for batch in rig:
            samples = batch[SIGNAL]
            if len(usual) < LEARNS_ROWS:
                usual = np.append(usual, samples.values)
                continue
            distance = np.abs(samples.values - usual.mean()) / (usual.std() or 1.0)
            await score.publish(samples.time_ns, {{"score": distance, "anomaly": distance > LIMIT}})


run(main())
'''


@dataclass(frozen=True, slots=True)
class FirstScenario:
    """The files that were written, and sentences about what was chosen."""

    files: list[Path]
    notes: tuple[str, ...] = ()


def write(
    folder: Path,
    name: str,
    clock: Clock,
    *,
    model: str | None,
    recording: Path | None,
    mapping: Path | None,
) -> FirstScenario:
    """Write a scenario and its prototype for a model, a recording or a gateway's mapping.

    Raises Invalid where it is none of them or several, and as `from_model`, `from_recording` and
    `from_mapping` do.
    """
    if sum(each is not None for each in (model, recording, mapping)) != 1:
        raise Invalid(
            "a first scenario is made of a model, of a recording or of a mapping",
            hint="add --from-model pump-rig, --from-recording FILE, or --from-mapping FILE",
        )
    if mapping is not None:
        return from_mapping(folder, name, mapping, clock)
    if recording is not None:
        return FirstScenario(from_recording(folder, name, recording))
    return FirstScenario(from_model(folder, name, model or ""))


def from_mapping(folder: Path, name: str, mapping: Path, clock: Clock) -> FirstScenario:
    """Write a scenario and its prototype for a gateway's mapping, with an equipment a stream.

    A model stands for the machine where one has its signals, else a recording of made-up rows is
    written.  Raises Unknown or Invalid for a mapping that cannot be read, Taken if a file is there.
    """
    from gateway.mapping import file as mapping_file  # noqa: PLC0415 - for mappings alone
    from testbed.scenario import mapping_equipment  # noqa: PLC0415

    chosen = mapping_equipment.choose(mapping_file.load(mapping), folder, name)
    lines = ["equipment:"]
    for each in chosen:
        lines.append(f"  # stands for {each.spec.address} of {mapping.name}")
        made_of = f"model: {each.model}" if each.model else f"recording: {each.folder.name}"
        lines.append(f"  {each.name}: {{{made_of}}}")
    signal = _first_number(chosen[0].spec.signals)
    rows = max(2, round(LEARNS_S / chosen[0].period_s))
    files = _written(folder, name, (f"{DURATION_S}s", lines, _expectations("")), signal, rows)
    for each in chosen:
        if not each.model:
            mapping_equipment.write_rows(each, clock)
    return FirstScenario(files, tuple(each.sentence for each in chosen))


def from_model(folder: Path, name: str, model: str) -> list[Path]:
    """Write a scenario and its prototype for a model; returns the files.

    Raises Invalid for a name or a model that is none, Taken if a file is there already.
    """
    info = catalogue.model(model)
    kind, words = next(iter(info.faults.items()), ("", ""))
    lines = [
        "equipment:",
        f"  rig: {{model: {model}}}        # testbed simulate {model} --help lists its parameters",
    ]
    if kind:
        lines += [
            "timeline:",
            f"  # {words}",
            f"  - {{fault: {kind}, on: rig, from: {FAULT_S[0]}s, to: {FAULT_S[1]}s}}",
        ]
    signal = _first_number(info.signals)
    rows = max(2, round(LEARNS_S / info.period_s))
    expected = _expectations(kind)
    return _written(folder, name, (f"{DURATION_S}s", lines, expected), signal, rows)


def from_recording(folder: Path, name: str, recording: Path) -> list[Path]:
    """Write a scenario and its prototype for a recording, a CSV file; returns the files.

    Raises Invalid for a recording that cannot be played, Taken if a file is there already.
    """
    played = replay.read(recording)
    times_ns = np.array([row.time_ns for row in played.content], np.int64)
    duration_s = max(1, -(-int(times_ns[-1] - times_ns[0]) // NS_PER_S))
    period_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else NS_PER_S
    is_labelled = any(row.anomaly is not None for row in played.content)
    file = recording.absolute()
    if file.is_relative_to(folder.absolute()):
        file = file.relative_to(folder.absolute())
    lines = ["equipment:", f"  rig: {{csv: {str(file)!r}}}"]
    signal = _first_number(played.signals)
    rows = max(2, round(LEARNS_S * NS_PER_S / (period_ns or NS_PER_S)))
    expected = _expectations("labelled" if is_labelled else "")
    return _written(folder, name, (f"{duration_s}s", lines, expected), signal, rows)


def _first_number(signals: Sequence[Signal]) -> str:
    numbers = [signal.name for signal in signals if signal.type is Dtype.FLOAT64]
    return (numbers or [signals[0].name])[0]


def _expectations(fault: str) -> list[str]:
    """Expectations of a first prototype: on its samples, and on its alarms if there is a fault."""
    lines = ["  - {name: it answers, stream: detector/score, count: {at_least: 10}}"]
    if fault:
        alarm = "detection: detector/score/anomaly, truth: rig"
        goal = "by: event, recall: {at_least: 100 %}"
        lines.append(f"  - {{name: it finds the fault, {alarm}, {goal}}}")
    return lines


def _written(
    folder: Path, name: str, parts: tuple[str, list[str], list[str]], signal: str, rows: int
) -> list[Path]:
    """Write the scenario, and its prototype beside it."""
    namespace.checked_id(name, "scenario")
    duration, machine, expectations = parts
    program = f"{re.sub('-', '_', name)}.py"
    text = "\n".join(
        [
            f"scenario: {name}",
            "description: say here what it tests",
            f"duration: {duration}",
            "seed: 7",
            *machine,
            "prototypes:",
            "  detector:",
            f"    python: {program}",
            "    inputs: {rig: rig}",
            "    outputs: [score]",
            "expectations:",
            *expectations,
            "",
        ]
    )
    files = {
        folder / f"{name}.yaml": SCHEMA_LINE.format(SCHEMA_FILE) + text,
        folder / program: PROTOTYPE.format(signal=signal, rows=rows),
        folder / SCHEMA_FILE: schema_text(),
    }
    own = list(files)[:2]
    for path in own:
        if path.exists():
            raise Taken(f"there is a file {path} already", hint="choose another name")
    for path, content in files.items():
        whole_file.write(path, content, option="--folder")
    return own


def schema_text() -> str:
    """The JSON Schema of scenario files."""
    import orjson  # noqa: PLC0415 - a part of printing alone

    from testbed_scenarios import schema  # noqa: PLC0415

    return orjson.dumps(schema.json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
