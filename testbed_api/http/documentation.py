"""The documentation page: Swagger UI on the OpenAPI document, all of it from this server.

Swagger UI comes in the package fastapi-swagger, of which only the files are used: its own page has
an inline script, which our Content-Security-Policy forbids, so page and script are ours.
"""

import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from testbed_api.http.request_context import ROOT

PAGE = f"{ROOT}/docs"
"""The path of the page."""

_OURS = Path(__file__).parent / "documentation_page"
_VIEWER = ("fastapi_swagger", "resources")
_REVALIDATED = {"Cache-Control": "no-cache"}


class _Assets(StaticFiles):
    """Files that a browser asks for again on each visit, so that no old one outlives an upgrade."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with a file."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_REVALIDATED)
        return response


def install(app: FastAPI) -> None:
    """Serve the documentation page and its assets from an app."""
    app.mount(f"{PAGE}/viewer", _Assets(packages=[_VIEWER]), name="viewer")
    app.mount(f"{PAGE}/page", _Assets(directory=_OURS), name="page")
    app.get(PAGE, include_in_schema=False)(_page)


async def _page() -> FileResponse:
    return FileResponse(_OURS / "page.html", headers=_REVALIDATED)
