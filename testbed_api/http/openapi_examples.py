"""The OpenAPI `responses` of routes, with an example of each answer and problem."""

from typing import Any

from broker.responses.base import AT, ApiResponse
from broker.responses.problems import ProblemResponse
from broker.responses.streams import HistoryResponse
from testbed_api.http.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]
"""The `responses` of a route, by status."""

CSV = f"time,Pressure\r\n{AT},0.054711\r\n"
PROBLEM_REFERENCE = {"$ref": f"#/components/schemas/{ProblemResponse.__name__}"}
EVENTS = 'event: batch\ndata: {"v":1,"pub":"…","spec":1,…}\n\nevent: missed\ndata: 3\n\n'
METRICS = "# TYPE testbed_broker_connected gauge\ntestbed_broker_connected 1.0\n"

_PROBLEMS = {
    400: ("the body cannot be read", "invalid", "There was an error parsing the body"),
    401: ("no credential, or not a right one", "unauthenticated", "the credential is not right"),
    403: ("not yours to do", "forbidden", "finn may not share stream factory/pump-rig/rig"),
    404: ("missing, or not yours to see", "unknown", "there is no stream factory/pump-rig/rig"),
    409: ("it exists already", "taken", "organisation 'factory' exists already"),
    413: ("the body is too large", "too_large", "a body of more than 1048576 bytes"),
    422: ("the request is wrong in itself", "invalid", "limit = 0: should be 1 or more"),
    429: ("too often lately", "too_many", "signing in failed too often lately"),
    503: ("a real system is away", "unavailable", "the broker is not connected"),
}


def answer(model: type[ApiResponse], status: int = 200, **changes: object) -> Responses:
    """The success of a route, with the model's example; changes: of its fields."""
    example = model.example() | changes
    content = {"application/json": {"example": example}}
    return {status: {"description": "done", "model": model, "content": content}}


def text(example: str, media_type: str) -> Responses:
    """The success of a route that answers with text."""
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "done", "content": content}}


def history(header: str | None = None, meaning: str = "") -> Responses:
    """The success of a route that streams samples as JSON or CSV; header: a count beside them."""
    answered: dict[str, Any] = {
        "description": "the samples of the span",
        "model": HistoryResponse,
        "content": {
            "application/json": {"example": HistoryResponse.example()},
            "text/csv": {"schema": {"type": "string"}, "example": CSV},
        },
    }
    if header is not None:
        counted = {"description": meaning, "schema": {"type": "integer"}}
        answered["headers"] = {header: counted}
    return {200: answered}


def problems(*statuses: int) -> Responses:
    """The problems that routes answer with, by status."""
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
    content = {MEDIA_TYPE: {"schema": PROBLEM_REFERENCE, "example": example}}
    return {"description": description, "content": content}
