"""The version of the wire format, and the JSON object that every message of it is.  Pure."""

from typing import Any

import orjson

from broker.errors import Corrupt

WIRE_VERSION = 1


def json_object(payload: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `payload`; `what` names it in the message.  Raises Corrupt."""
    try:
        raw = orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        raise Corrupt(f"{what} that is not JSON: {exc}") from exc
    if not isinstance(raw, dict):
        raise Corrupt(f"{what} that is a JSON {type(raw).__name__}, not an object")
    return raw
