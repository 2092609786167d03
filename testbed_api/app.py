"""The API as one FastAPI app: routes, problems, bounds, and documentation that needs no other host."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from testbed_api import errors
from testbed_api.http import credentials, operations, registry, streams
from testbed_api.parts import Parts

ROOT = "/api/v1"
MOST_BODY = 1024 * 1024
_ASSETS = f"{ROOT}/docs/assets"

_DESCRIPTION = """What is shared with you, what is stored of it, and what comes in now.

Every request but `health` and `ready` carries `Authorization: Bearer principal.secret`. Errors are problem+json
(RFC 9457) with a stable `code`, a `detail` in a sentence, and often a `hint`. What is not yours answers as if it
were not there."""


def create_app(parts: Parts | None) -> FastAPI:
    """The app over its parts; without parts it can only describe itself."""
    app = FastAPI(
        title="connected-testbed",
        version=version("connected-testbed"),
        description=_DESCRIPTION,
        openapi_url=f"{ROOT}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    errors.install(app)
    app.middleware("http")(_bounded)
    for room in (operations, registry, streams, credentials):
        app.include_router(room.router, prefix=ROOT)
    app.mount(_ASSETS, StaticFiles(directory=swagger_ui_path), name="assets")
    app.get(f"{ROOT}/docs", include_in_schema=False)(_documentation)
    return app


def openapi_document() -> Mapping[str, Any]:
    """The API's OpenAPI document."""
    return create_app(None).openapi()


async def _documentation() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url=f"{ROOT}/openapi.json",
        title="connected-testbed API",
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
    )


async def _bounded(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse bodies that are too large, or that do not say how large they are."""
    if request.method in {"POST", "PUT", "PATCH"}:
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return errors.problem(411, "length_required", "the request does not say how long its body is")
        if int(length) > MOST_BODY:
            return errors.problem(413, "too_large", f"a body of {length} bytes; at most {MOST_BODY}")
    return await go_on(request)
