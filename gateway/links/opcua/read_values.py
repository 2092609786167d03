"""Reads the values of monitored items, and converts the answers to data changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from asyncua import Client, ua
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.links.opcua import call_sizes, refusal_codes
from gateway.links.opcua.call_sizes import ServerLimits, Service
from gateway.links.opcua.data_changes import NO_TIME, NOTHING, OTHER, DataChanges
from gateway.links.values import instant_of

_FIRST_YEAR = 1970


async def read(
    client: Client, nodes: Sequence[ua.NodeId], limits: ServerLimits
) -> list[ua.DataValue]:
    """The value of each node, with both time stamps; a refusal is a bad status."""

    async def request(chunk: Sequence[ua.NodeId]) -> Sequence[Any]:
        parameters = ua.ReadParameters()
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.NodesToRead = [ua.ReadValueId(node, ua.AttributeIds.Value) for node in chunk]
        answers: Sequence[Any] = await client.uaclient.read(parameters)
        return answers

    answers = await call_sizes.call(limits, Service.READ, nodes, request)
    return [_data_value(answer) for answer in answers]


def _data_value(answer: Any) -> ua.DataValue:
    if isinstance(answer, ua.DataValue):
        return answer
    refusal = answer.code if isinstance(answer, UaStatusCodeError) else None
    code = ua.StatusCodes.BadInternalError if refusal is None else refusal
    return ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(code)))


def status_of(answer: ua.DataValue) -> int:
    """The status code of an answer; 0 for none, which means good."""
    return int(answer.StatusCode.value) if answer.StatusCode is not None else 0


def is_bad(answer: ua.DataValue) -> bool:
    """Whether an answer has no value for its status."""
    return status_of(answer) >> 30 > 1


def is_gone(answer: ua.DataValue) -> bool:
    """Whether the server does not have the node any more."""
    return status_of(answer) in refusal_codes.NO_NODE


def source_ns(answer: ua.DataValue) -> int:
    """The source time stamp of an answer, ns since 1970; else NO_TIME."""
    return _ns(answer.SourceTimestamp)


def server_ns(answer: ua.DataValue) -> int:
    """The server's time stamp of an answer, ns since 1970; else NO_TIME."""
    return _ns(answer.ServerTimestamp)


def _ns(time: datetime | None) -> int:
    """Ns since 1970; servers write 1601 for a time that they do not know."""
    return NO_TIME if time is None or time.year < _FIRST_YEAR else instant_of(time)


def value_of(answer: ua.DataValue) -> Any:
    """The value in an answer as asyncua decoded it; None if there is none."""
    return answer.Value.Value if answer.Value is not None else None


def changes_of(answers: Sequence[tuple[int, ua.DataValue]], times_ns: list[int]) -> DataChanges:
    """Convert (handle, value read) pairs to data changes at these time stamps."""
    values = [value_of(answer) for _, answer in answers]
    others = np.empty(len(values), np.object_)
    for row, value in enumerate(values):
        others[row] = value  # not as a whole: numpy would spread an array among the values
    return DataChanges(
        handle=np.array([handle for handle, _ in answers], np.uint32),
        time_ns=np.array(times_ns, np.int64),
        status=np.array([status_of(answer) for _, answer in answers], np.uint32),
        kind=np.array([NOTHING if value is None else OTHER for value in values], np.uint8),
        floats=np.empty(0, np.float64),
        ints=np.empty(0, np.int64),
        others=others,
    )
