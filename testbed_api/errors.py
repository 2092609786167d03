"""Errors as HTTP: the one place where a branch of the tree becomes a status (RFC 9457, problem+json)."""

import secrets
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from broker.errors import BedError, Corrupt, Forbidden, Invalid, Partial, Refused, Taken, Unavailable, Unknown

STATUS: Mapping[type[BedError], int] = {
    Invalid: 422,
    Unknown: 404,
    Forbidden: 403,
    Taken: 409,
    Refused: 409,
    Unavailable: 503,
    Partial: 500,
    Corrupt: 422,
}
RETRY_AFTER_S = 2

log = structlog.get_logger()


class Unauthenticated(Forbidden):
    """No credential came with the request, or one that is not right."""

    code = "unauthenticated"


def install(app: FastAPI) -> None:
    """Answer every error of this app with a problem."""
    app.add_exception_handler(BedError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_a_bug)


def problem(status: int, code: str, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem+json answer."""
    body = {"type": f"urn:connected-testbed:problem:{code}", "title": code, "status": status, "detail": detail, "code": code}
    if hint:
        body["hint"] = hint
    return JSONResponse(body, status, dict(headers or {}), "application/problem+json")


async def _of_ours(_request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, BedError):
        raise exc
    if isinstance(exc, Unauthenticated):
        challenge = {"WWW-Authenticate": "Bearer"}
        return problem(401, exc.code, exc.message, hint=exc.hint, headers=challenge)
    status = next(STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(exc, Unavailable) else None
    return problem(status, exc.code, exc.message, hint=exc.hint, headers=headers)


async def _of_validation(_request: Request, exc: Exception) -> JSONResponse:
    errors: list[Any] = list(exc.errors()) if isinstance(exc, RequestValidationError) else []
    sentences = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in errors]
    return problem(422, Invalid.code, "; ".join(sentences[:10]).encode("ascii", "replace").decode())


async def _of_http(_request: Request, exc: Exception) -> JSONResponse:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    code = {404: Unknown.code, 405: "method_not_allowed", 413: "too_large"}.get(status, "http")
    headers = getattr(exc, "headers", None)
    return problem(status, code, str(getattr(exc, "detail", "")), headers=headers)


async def _of_a_bug(request: Request, exc: Exception) -> JSONResponse:
    number = secrets.token_hex(6)
    log.error("request failed", request=number, path=request.url.path, exc_info=exc)
    return problem(500, "bug", f"this is a fault of the testbed; its log has it under {number}")
