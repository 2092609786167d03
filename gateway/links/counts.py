"""Counters of a link, which the gateway's statistics publish, and the time an alarm stands."""

from dataclasses import dataclass

from broker.clock import NS_PER_S

UNFIT_ALARM_NS = 60 * NS_PER_S
"""The alarm about values of the wrong type is cleared when the last one is this old."""


@dataclass(slots=True)
class LinkCounts:
    """Counters of one link since its process started.

    connects: connections to the source.  republished: OPC UA messages received by Republish.
    lost: OPC UA messages that the server could no longer republish.  overflows: samples before
    which the server's queue dropped others.  unfit: values that did not fit their signal's dtype.
    """

    connects: int = 0
    republished: int = 0
    lost: int = 0
    overflows: int = 0
    unfit: int = 0
