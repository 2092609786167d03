"""The models there are, by name."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from simulators.models import cnc_spindle, conveyor_line, press, pump_rig, robot_cell
from simulators.parameters import unknown
from simulators.stepped import ModelInfo

__all__ = ["MODELS", "ModelInfo", "kinds_of", "model"]

_ALL = (
    pump_rig.MODEL,
    press.MODEL,
    robot_cell.MODEL,
    conveyor_line.MODEL,
    cnc_spindle.MODEL,
)
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _ALL})


def model(name: str) -> ModelInfo:
    """The model of a name; raises Invalid with the nearest name."""
    if name not in MODELS:
        raise unknown(f"there is no model {name!r}", name, MODELS)
    return MODELS[name]


def kinds_of(signals: Sequence[str]) -> AbstractSet[str]:
    """Kinds of fault of the model that has exactly these signals, none if there is no such one."""
    for info in MODELS.values():
        if [signal.name for signal in info.signals] == list(signals):
            return info.faults.keys()
    return frozenset()
