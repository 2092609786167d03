"""Maps errors to HTTP statuses and problem documents (RFC 9457); no other place does."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from broker import pydantic_checks
from broker.errors import (
    BedError,
    Corrupt,
    Forbidden,
    Invalid,
    Partial,
    Refused,
    Taken,
    Unavailable,
    Unknown,
)
from testbed_api.domain.errors import TooMany, Unauthenticated

STATUS: Mapping[type[BedError], int] = {
    Invalid: 422,
    Unknown: 404,
    Forbidden: 403,
    Taken: 409,
    Refused: 409,
    Unavailable: 503,
    Partial: 500,
    Corrupt: 500,  # it is our own files that lie: what a client sends is Invalid
}
RETRY_AFTER_S = 2
MEDIA_TYPE = "application/problem+json"

_OF_STATUS = {
    400: Invalid.code,
    404: Unknown.code,
    405: "method_not_allowed",
    413: "too_large",
}
_MOST_TOLD = 5
_MOST_SHOWN = 60
_SECRET_FIELDS = frozenset({"password", "code", "value"})
"""Fields of bodies whose values are never repeated."""

log = structlog.get_logger()


class _Problem(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Encode as JSON, also a text that is not valid Unicode."""
        plain = {
            key: value.encode("utf-8", "backslashreplace").decode()
            if isinstance(value, str)
            else value
            for key, value in content.items()
        }
        return super().render(plain)


def install(app: FastAPI) -> None:
    """Answer every error of this app with a problem."""
    app.add_exception_handler(BedError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_a_bug)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    path: str,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem+json answer to a request for `path`, with the id of the request at work."""
    body = {
        "type": f"urn:connected-testbed:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
        "code": code,
        "instance": path,
    }
    more = {"hint": hint, "request": _request()}
    optional = {name: text for name, text in more.items() if text}
    return _Problem(body | optional, status, dict(headers or {}))


def _request() -> str:
    """The id of the request at work, as the audit has it."""
    return str(structlog.contextvars.get_contextvars().get("request", ""))


async def _of_ours(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, BedError):
        raise exc
    return answer(exc, request.url.path)


def answer(exc: BedError, path: str) -> JSONResponse:
    """The problem response for one of our errors, to a request for `path`."""
    status = next(STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS)
    headers: dict[str, str] = {}
    if isinstance(exc, Unauthenticated):
        status, headers = 401, {"WWW-Authenticate": "Bearer"}
    if isinstance(exc, TooMany):
        status, headers = 429, {"Retry-After": str(exc.wait_s)}
    if isinstance(exc, Unavailable):
        headers = {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(exc, Corrupt | Partial):
        log.error("stored data was not understood", path=path, reason=str(exc))
    return problem(status, exc.code, exc.message, path=path, hint=exc.hint, headers=headers)


async def _of_validation(request: Request, exc: Exception) -> JSONResponse:
    errors: list[Any] = list(exc.errors()) if isinstance(exc, RequestValidationError) else []
    sentences = [_sentence(error, request) for error in errors[:_MOST_TOLD]]
    if len(errors) > _MOST_TOLD:
        sentences.append(f"and {len(errors) - _MOST_TOLD} more")
    return problem(422, Invalid.code, "; ".join(sentences), path=request.url.path)


def _sentence(error: Mapping[str, Any], request: Request) -> str:
    """A sentence on invalid input: the field, its value, what is wrong, and what is accepted."""
    where, *names = error["loc"]
    if error["type"] == "json_invalid":
        return f"the body is not JSON: it goes wrong at character {error['loc'][-1]}"
    field = ".".join(map(str, names)) or f"the {where}"
    if error["type"] == "extra_forbidden" and names:
        known = _known_fields(request, where, names[:-1])
        return f"{field}: {pydantic_checks.unknown_field(str(names[-1]), known)}"
    given = None if _SECRET_FIELDS.intersection(names) else error.get("input")
    value = f" = {given!r:.{_MOST_SHOWN}}" if isinstance(given, str | int | float) else ""
    return f"{field}{value}: {pydantic_checks.sentence(error)}"


def _known_fields(request: Request, where: str, path: Sequence[str | int]) -> list[str]:
    """The names that the route takes in the body or the query, at a path in it."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    fields: list[Any] = getattr(dependant, f"{where}_params", [])
    form = fields[0].field_info.annotation if len(fields) == 1 else None
    if isinstance(form, type) and issubclass(form, BaseModel):
        return pydantic_checks.fields_at(form, path)
    return []


async def _of_http(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, HTTPException):
        raise exc
    path = request.url.path
    code = _OF_STATUS.get(exc.status_code, "http")
    return problem(exc.status_code, code, str(exc.detail), path=path, headers=exc.headers)


async def _of_a_bug(request: Request, exc: Exception) -> JSONResponse:
    number = _request() or secrets.token_hex(8)
    path = request.url.path
    log.error("request failed", request=number, path=path, exc_info=exc)
    sentence = f"this is a fault of the testbed; its log has it under {number}"
    return problem(500, "bug", sentence, path=path)
