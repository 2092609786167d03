"""The mapping file of a gateway that reads a simulated machine, with all that its model knows."""

from pathlib import Path
from typing import Any

import yaml

from broker.errors import Unavailable, Unknown
from broker.streams import Signal
from simulators.faces.mqtt import TIME
from simulators.faces.opcua import NAMESPACE
from simulators.fmu.model import FmuModel
from simulators.model import RowSource
from simulators.stepped import SteppedModel
from testbed.simulator.machine import SimulatorOptions

ORGANISATION = "factory"


def write(
    options: SimulatorOptions, source: RowSource, url: str, period_s: float | None = None
) -> None:
    """Write the mapping file, if one is wanted; raises Unknown or Unavailable.

    period_s: between two rows, 0 if unknown; None for a model's own at the options' speed.
    """
    if options.mapping is not None:
        if period_s is None:
            period_s = source.period_s if isinstance(source, SteppedModel | FmuModel) else 0.0
            period_s /= options.playback.speed
        text = mapping_text(options, source.signals, url, period_s)
        _write(options.mapping, text)


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x") as new:
            new.write(text)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise Unknown(f"there is no folder {file.parent} for the mapping {file.name}") from exc
    except OSError as exc:
        raise Unavailable(f"the mapping {file} cannot be written: {exc.strerror}") from exc


def mapping_text(
    options: SimulatorOptions, signals: tuple[Signal, ...], url: str, period_s: float
) -> str:
    """The mapping (YAML) of a machine at a URL.  period_s: between two rows, 0 if unknown."""
    broker = options.broker
    server: dict[str, Any] = {"url": url}
    if broker is None:
        server["security"] = "none" if options.keys is None else "sign-and-encrypt"
    elif broker.user:
        server["user"] = broker.user
    stream: dict[str, Any] = {"period_s": period_s}
    if broker is None:
        stream["trigger"] = "timestamp"
    stream["signals"] = {signal.name: _signal(signal, options) for signal in signals}
    name = options.object_name
    equipment = "".join(f"-{c.lower()}" if c.isupper() else c for c in name).strip("-")
    document = {
        "organisation": ORGANISATION,
        "equipment": equipment,
        "kind": "simulated",
        "opcua" if broker is None else "mqtt": server,
        "streams": {options.stream: stream},
    }
    return yaml.safe_dump(document, sort_keys=False, width=120)


def _signal(signal: Signal, options: SimulatorOptions) -> dict[str, Any]:
    """The source of a signal, and all that is known of it."""
    if options.broker is None:
        source = {"node": f"nsu={NAMESPACE};s={options.object_name}.{signal.name}"}
    else:
        source = {
            "topic": options.broker.topic,
            "value": f"/{signal.name}",
            "time": f"/{TIME}",
            "time_format": "us",
        }
    words = {
        "shape": list(signal.shape) or None,
        "unit": signal.unit,
        "low": signal.low,
        "high": signal.high,
        "resolution": signal.resolution,
        "description": signal.description,
    }
    return source | {name: value for name, value in words.items() if value not in (None, "")}
