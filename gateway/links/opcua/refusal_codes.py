"""Status codes with which a server refuses a request, by what the link does next.  Pure.

Source: OPC UA Part 4, 7.39.2 (Common StatusCodes), and Part 6, 7.1.5 (Error handling).
"""

from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError

_CODES = ua.StatusCodes

TOO_LARGE = frozenset(
    {
        _CODES.BadTooManyOperations,
        _CODES.BadRequestTooLarge,
        _CODES.BadResponseTooLarge,
        _CODES.BadEncodingLimitsExceeded,
        _CODES.BadTcpMessageTooLarge,
    }
)
"""The same nodes in smaller requests are accepted."""

UNSUPPORTED = frozenset(
    {_CODES.BadServiceUnsupported, _CODES.BadNotImplemented, _CODES.BadNotSupported}
)
"""The server does not have the service at all: no other node would do."""

FULL = frozenset(
    {_CODES.BadTooManyMonitoredItems, _CODES.BadOutOfMemory, _CODES.BadResourceUnavailable}
)
"""The subscription takes no further item; another one may."""

NO_FILTER = frozenset(
    {
        _CODES.BadMonitoredItemFilterUnsupported,
        _CODES.BadMonitoredItemFilterInvalid,
        _CODES.BadFilterNotAllowed,
    }
)
"""The item is accepted without a filter."""

NO_NODE = frozenset({_CODES.BadNodeIdUnknown, _CODES.BadNodeIdInvalid})
"""The server does not have the node."""

BUSY = frozenset(
    {
        _CODES.BadTooManySessions,
        _CODES.BadMaxConnectionsReached,
        _CODES.BadTcpServerTooBusy,
        _CODES.BadTcpNotEnoughResources,
        _CODES.BadServerTooBusy,
    }
)
"""The server has as many sessions or connections as it takes."""

_CONNECTION_ENDED = frozenset(
    {
        _CODES.BadSessionIdInvalid,
        _CODES.BadSessionClosed,
        _CODES.BadSessionNotActivated,
        _CODES.BadSecureChannelIdInvalid,
        _CODES.BadSecureChannelClosed,
        _CODES.BadSecureChannelTokenUnknown,
        _CODES.BadConnectionClosed,
        _CODES.BadServerNotConnected,
        _CODES.BadServerHalted,
        _CODES.BadShutdown,
        _CODES.BadDisconnect,
    }
)


def code_of(exc: BaseException) -> int | None:
    """The status code of an error; None if it has none."""
    return exc.code if isinstance(exc, UaStatusCodeError) else None


def ends_connection(exc: Exception) -> bool:
    """Whether no other request of this connection would be answered either."""
    code = code_of(exc)
    return code is None or code in _CONNECTION_ENDED


def name_of(code: int) -> str:
    """The name of a status code, such as BadNotConnected."""
    return str(ua.StatusCode(ua.UInt32(code)).name)
