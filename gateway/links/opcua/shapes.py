"""Compares the shape of a node, a single value or an array, with that of its signal.  Pure."""

from broker.streams import Signal, ValueType
from gateway.links.opcua.resolution import ResolvedNode
from gateway.links.values import ElementOf, Reading
from gateway.mapping.model import Item, StreamMapping


def readings(stream: StreamMapping) -> tuple[Reading, ...]:
    """The part of its node's value that each signal of a stream reads."""
    if all(item.element is None for item in stream.items):
        return stream.spec.dtypes
    pairs = zip(stream.spec.signals, stream.items, strict=True)
    return tuple(_reading(signal, item.element) for signal, item in pairs)


def _reading(signal: Signal, element: int | None) -> ElementOf | ValueType:
    return signal.type if element is None else ElementOf(signal.dtype, element)


def misread(node: ResolvedNode, signal: Signal, item: Item) -> str:
    """Why no value of a node can ever be the signal's; empty if one may."""
    wants_array = bool(signal.shape) or item.element is not None
    if node.is_array and not wants_array:
        shape = f"shape: [{node.length or 'LENGTH'}]"
        return f"it is an array: write {shape}, or element: 0 for one value of it"
    if node.is_array is False and wants_array:
        field = "shape" if signal.shape else "element"
        return f"it is a single value on the server: leave out {field}"
    return ""


def misfit(node: ResolvedNode, signal: Signal, item: Item) -> str:
    """How the length that a server states of an array differs from the mapping; empty if not.

    A warning only: servers state lengths that their values do not have.
    """
    if not node.length:
        return ""
    stated = f"the server says that the array has {node.length} elements"
    if signal.shape and signal.shape[0] != node.length:
        return f"{stated}, and the mapping {signal.shape[0]}: write shape: [{node.length}]"
    if item.element is not None and item.element >= node.length:
        return f"{stated}, and there is no element {item.element}: they count from 0"
    return ""
