"""Write the page of the simulated machines from their catalogue.

`python docs/reference/machines.py` writes machines.md beside this file; a test holds them equal.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from broker.streams import Signal
from simulators.catalogue import MODELS, ModelInfo

HEAD = """# Simulated machines

`testbed simulate NAME` runs one of these models until Ctrl-C, behind an OPC UA server or on an
MQTT broker. They are for prototypes to be tried on: each has faults whose truth is known, and
inputs that a controller can act on. `testbed simulate list` prints the same tables. `python
docs/reference/machines.py` writes this page from the models, and a test holds it equal.

![One signal of each machine, before and in a fault](../pictures/machines.svg)

<!-- not run: they run until Ctrl-C; tests/integration/test_simulators_served.py serves each -->

```
testbed simulate press --fault leak@60..300                    # seconds of the machine's time
testbed simulate robot-cell --set speed=0.6 --set part_mass=3  # an input and a parameter
testbed simulate cnc-spindle --fault-every 20m --speed 10      # a random fault in each 20 minutes
testbed simulate conveyor-line --mqtt 127.0.0.1:1883 --write line.yaml
```

| machine | what it is | a row every |
|---|---|---|
"""
COMMON = """
Equal arguments and an equal `--seed` give equal rows, however many are asked for at once. A
sensor shows nothing beyond its range, an actuator takes nothing beyond its own. Units are [UCUM
codes](mapping.md). A fault is `kind@start..end`, with `x0.5` behind it for half the severity; it
comes and goes over 2 s, inside its span, and every row within it is labelled in the `--ledger`
with its kind. [The pump rig](pump-rig.md) says more about faults, the ledger, the OPC UA server,
and playing a recording.

## Over MQTT

`--mqtt HOST:PORT` publishes a JSON document a row, at quality of service 1, on the topic
`simulated/NAME` or that of `--topic`:

```json
{"ts": 1795435200123000, "Station1 State": 1.0, "Buffer1": 3.0, "Throughput": 9.412, "Power": 5.327}
```

`ts` is the row's time in whole microseconds since 1970 UTC; the keys are the signals' names.
`--mqtt USER@HOST:PORT` signs in, with the password in `TESTBED_SOURCE_PASSWORD`. While the broker
is away rows wait, and are sent again: the broker may get one twice, and none is left out.
`--wait` and `--secure` are for OPC UA.

`--write FILE` writes the mapping of a gateway that reads the machine, over OPC UA as well, with
every unit, range and description; set `organisation` and `equipment` in it. A signal of it, as in
[sensors over MQTT](../how-to/connect-mqtt-sensors.md):

```yaml
Throughput:
  {topic: simulated/conveyor-line, value: /Throughput, time: /ts, time_format: us, unit: /min}
```
"""
CHECKED = {
    "pump-rig": "means and spreads of the recorded rig (`valve1` of the Skoltech benchmark); the"
    " affinity laws of flow, head and power; the time constant of the motor",
    "press": "the closed solutions of its balances (step of the heater, heat in = heat out, rise of"
    " the pressure, end pressure with a leak); Archard's wear for each stroke",
    "robot-cell": "places of two links at known angles; torques against the change of the kinetic"
    " energy; 15/8 of the mean speed in a move; cycle time; energy against the integral of the"
    " power",
    "conveyor-line": "Hunt's 22/39 of three stations without buffers; (N + 2)/(N + 3) of two"
    " stations with a buffer of N; the efficiency of two stations that break down",
    "cnc-spindle": "BPFO 3.585 and BPFI 5.415 of a 6205 (Case Western Reserve University, Bearing"
    " Data Center); the Hann window against a discrete Fourier transform; Kienzle's cutting power",
}
"""Model -> known solutions and published figures that its tests hold it against."""


def page() -> str:
    """The page, as Markdown."""
    rows = [
        f"| [`{info.name}`](#{info.name}) | {info.description} | {info.period_s:g} s |"
        for info in MODELS.values()
    ]
    sections = [line for info in MODELS.values() for line in section(info)]
    return HEAD + "\n".join([*rows, COMMON.rstrip("\n"), *sections]) + "\n"


def section(info: ModelInfo) -> Iterator[str]:
    """The lines about one model: tables, then its equations."""
    yield f"\n## {info.name}\n"
    yield "| signal | unit | range | |\n|---|---|---|---|"
    yield from (signal_row(signal) for signal in info.signals)
    yield "\n| input | unit | range | by default | |\n|---|---|---|---|---|"
    for signal in info.inputs:
        cells = [signal.unit, span(signal), f"{info.input_defaults[signal.name]:g}"]
        yield f"| `{signal.name}` | {' | '.join([*cells, signal.description])} |"
    yield "\n| fault | what happens |\n|---|---|"
    yield from (f"| `{kind}` | {text} |" for kind, text in info.faults.items())
    yield "\n| parameter | by default | unit | range | |\n|---|---|---|---|---|"
    for each in info.parameters:
        limits = f"{each.low:g} … {each.high:g}"
        yield f"| `{each.name}` | {each.default:g} | {each.unit} | {limits} | {each.description} |"
    yield f"\nChecked against: {CHECKED[info.name]}.\n"
    yield "Equations, from the docstring of the model:\n"
    module = sys.modules[info.equations.__module__]
    yield f"```text\n{inspect.getdoc(module)}\n```"


def signal_row(signal: Signal) -> str:
    """A signal as a row of a table."""
    unit = f"{signal.unit}, [{signal.shape[0]}]" if signal.shape else signal.unit
    return f"| {signal.name} | {unit} | {span(signal)} | {signal.description} |"


def span(signal: Signal) -> str:
    """The range of a signal."""
    return f"{signal.low:g} … {signal.high:g}"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
