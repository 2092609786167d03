"""The models that there are, with all that can be set of them, as text and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.streams import Signal
from simulators import catalogue
from simulators.stepped import ModelInfo
from testbed.terminal.screen import Screen


def models(name: str | None) -> Sequence[ModelInfo]:
    """The model of a name, or all for None; raises Invalid for an unknown one."""
    return list(catalogue.MODELS.values()) if name is None else [catalogue.model(name)]


def as_json(infos: Sequence[ModelInfo]) -> dict[str, Any]:
    """The models as a JSON document."""
    return {"items": [_as_json(info) for info in infos]}


def print_models(infos: Sequence[ModelInfo], out: Screen) -> None:
    """Print each model, with a line for each signal, input, fault and parameter."""
    for info in infos:
        out.print(info.name, style="bold", end="")
        out.print(f": {info.description}; a row every {info.period_s:g} s")
        for title, rows in _sections(info).items():
            out.print(f"  {title}")
            columns = max(len(row[0]) for row in rows)
            for name, text in rows:
                out.print(f"    {name:{columns}}  {text}")


def _sections(info: ModelInfo) -> Mapping[str, Sequence[tuple[str, str]]]:
    parameters = [
        (each.name, _line(f"{each.default:g}", each.unit, (each.low, each.high), each.description))
        for each in info.parameters
    ]
    inputs = [
        (each.name, _line(f"{info.input_defaults[each.name]:g}", *_about(each)))
        for each in info.inputs
    ]
    return {
        "signals": [(each.name, _line("", *_about(each))) for each in info.signals],
        "inputs, --set NAME=VALUE": inputs,
        "faults, --fault KIND@START..END": list(info.faults.items()),
        "parameters, --set NAME=VALUE": parameters,
    }


def _about(signal: Signal) -> tuple[str, tuple[float, float], str]:
    size = f" [{signal.shape[0]}]" if signal.shape else ""
    return f"{signal.unit}{size}", (signal.low or 0.0, signal.high or 0.0), signal.description


def _line(value: str, unit: str, limits: tuple[float, float], description: str) -> str:
    """A value with its unit, its range and its meaning."""
    words: Iterator[str] = filter(None, (value, "" if unit == "1" else unit))
    span = f"{limits[0]:g}…{limits[1]:g}"
    return f"{' '.join(words)} ({span}): {description}".lstrip()


def _as_json(info: ModelInfo) -> dict[str, Any]:
    def described(signal: Signal) -> dict[str, Any]:
        keys = ("name", "unit", "low", "high", "resolution", "description", "shape")
        return {key: getattr(signal, key) for key in keys}

    return {
        "name": info.name,
        "description": info.description,
        "period_s": info.period_s,
        "signals": [described(signal) for signal in info.signals],
        "inputs": [
            described(signal) | {"default": info.input_defaults[signal.name]}
            for signal in info.inputs
        ],
        "faults": [{"kind": kind, "description": text} for kind, text in info.faults.items()],
        "parameters": [asdict(each) for each in info.parameters],
    }
