"""What each route answers, as the documentation shows it."""

from collections.abc import Mapping
from typing import Any

from testbed_api.http.problems import MEDIA_TYPE

_AT = "2026-11-23T12:00:00.000000000Z"
_LATER = "2026-11-23T12:00:05.000000000Z"
_STREAM = "factory/pump-rig/rig"
_ENTRY = {"space": "live", "stream": _STREAM}

ORGANISATION = {"id": "factory", "name": "The Factory Ltd", "kind": "partner"}
MEMBER = {"person": "fay", "roles": ["owner"], "since": _AT}
JOINED = {"credential": "fay.pK0v…"} | MEMBER
FOUNDED = ORGANISATION | JOINED
TOKEN = {
    "id": 3,
    "principal": "fay",
    "label": "my laptop",
    "made": _AT,
    "expires": None,
    "last_used": _LATER,
    "roles": None,
}
TOKEN_ISSUED = {"credential": "fay.pK0v…"} | TOKEN
GRANT = {
    "id": 5,
    "company": "company",
    "space": "live",
    "stream": _STREAM,
    "purpose": "to find out why the pump stalls",
    "state": "granted",
    "from": _AT,
    "until": None,
    "asked_by": "cora",
    "decided_by": "fay",
    "reason": "",
    "paused": False,
    "sentence": "The owners and developers of company, and those of its machines that list the"
    " stream, may read factory/pump-rig/rig in live, as it comes and all that is stored of it,"
    ' until somebody ends it. Purpose: "to find out why the pump stalls". fay granted it on'
    " 2026-11-23 12:00:00 UTC.",
}
EQUIPMENT = {
    "organisation": "factory",
    "equipment": "pump-rig",
    "name": "Pump rig 1",
    "kind": "simulated",
    "site": {"enterprise": "The Factory Ltd", "site": "North"},
    "description": "",
}
SPEC = {
    "v": 1,
    "stream": _STREAM,
    "version": 1,
    "trigger": "timestamp",
    "period_s": 1.0,
    "max_silence_s": 10.0,
    "description": "",
    "signals": [
        {
            "name": "Pressure",
            "dtype": "float64",
            "shape": [],
            "unit": "bar",
            "low": 0.0,
            "high": 6.0,
            "resolution": 0.01,
            "description": "behind the pump",
            "node": "nsu=urn:factory;s=Pressure",
        }
    ],
}
STREAM = {
    "stream": _STREAM,
    "spec": SPEC,
    "freshness": {"live": {"state": "fresh", "last": _AT, "valid_until": _LATER, "alarms": []}},
}
GAP = {"signals": ["Pressure"], "from": _AT, "to": _LATER, "cause": "server-overflow"}
HISTORY = {
    "stream": _STREAM,
    "space": "live",
    "spec": 1,
    "frames": [{"t0": _AT, "dt": [0, 1000000000], "signal": [0, 0], "value": [3.02, 3.01]}],
    "gaps": [GAP],
}
CSV = f"time,Pressure\r\n{_AT},3.02\r\n"
DEAD_LETTER = {
    "id": 17,
    "epoch": "01JD",
    "seq": 4711,
    "signal": "Pressure",
    "time": _AT,
    "value": '"high"',
    "reason": "a JSON str is no float64",
    "received": _LATER,
}
EVENTS = 'event: batch\ndata: {"v":1,"pub":"…","spec":1,…}\n\nevent: missed\ndata: 3\n\n'
HELD = {
    "principal": "detector",
    "kind": "machine",
    "organisation": "company",
    "roles": [],
    "reads": [_ENTRY],
    "writes": [],
    "equipment": None,
    "expires": None,
}
ISSUED = {"credential": "detector.pK0v…"} | HELD
ME = {
    "principal": "fay",
    "kind": "person",
    "organisation": "factory",
    "roles": ["auditor"],
    "reads": [],
    "writes": [],
    "equipment": None,
    "expires": None,
    "token": TOKEN | {"label": "for the report", "roles": ["auditor"]},
}
STATUS = {
    "since": _AT,
    "interrupted": None,
    "broker": True,
    "streams": [
        {
            "stream": _STREAM,
            "space": "live",
            "state": "fresh",
            "last": _LATER,
            "alarms": [],
            "gaps": 0,
            "dead_letters": 0,
        }
    ],
}
METRICS = "# TYPE testbed_broker_connected gauge\ntestbed_broker_connected 1.0\n"

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, in a sentence"},
        "code": {"type": "string", "description": "stable: for programs"},
        "instance": {"type": "string"},
        "hint": {"type": "string", "description": "what would be right"},
    },
}
_PROBLEMS = {
    400: ("the body cannot be read", "invalid", "There was an error parsing the body"),
    401: ("no credential, or not a right one", "unauthenticated", "the credential is not right"),
    403: ("not yours to do", "forbidden", "finn may not share stream factory/pump-rig/rig"),
    404: ("missing, or not yours to see", "unknown", f"there is no stream {_STREAM}"),
    409: ("it exists already", "taken", "organisation 'factory' exists already"),
    413: ("the body is too large", "too_large", "a body of more than 1048576 bytes"),
    422: ("the request is wrong in itself", "invalid", "limit = 0: should be 1 or more"),
    429: ("too often lately", "too_many", "signing in failed too often lately"),
    503: ("a real system is away", "unavailable", "the broker is not connected"),
}


def page(item: Mapping[str, Any], following: object = None) -> dict[str, Any]:
    """One page of a listing."""
    return {"items": [item], "next": following}


def answer(example: object, media_type: str = "application/json", status: int = 200) -> Any:
    """What a route's `responses` says of success."""
    return {
        status: {"description": "done", "content": {media_type: {"example": example}}},
    }


def problems(*statuses: int) -> Any:
    """What a router's `responses` says of these errors."""
    return {status: _problem(status, *_PROBLEMS[status]) for status in statuses}


def _problem(status: int, description: str, code: str, detail: str) -> dict[str, Any]:
    example = {
        "type": f"urn:connected-testbed:problem:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": "/api/v1/…",
    }
    content = {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA, "example": example}}
    return {"description": description, "content": content}
