"""The route that answers at the API's root: what this is, and where its documentation is."""

from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from broker.responses.operations import EntryPointResponse
from testbed_api.http import documentation, openapi_examples
from testbed_api.http.auth import asks
from testbed_api.http.dependencies import BrokerListenerDep
from testbed_api.http.request_context import ROOT

router = APIRouter(tags=["operations"])

_REDIRECTED: openapi_examples.Responses = {303: {"description": "the documentation, for browsers"}}
_VARY = {"Vary": "Accept"}


@router.get(
    "",
    openapi_extra=asks(None),
    summary="What is this?",
    response_model=EntryPointResponse,
    responses=openapi_examples.answer(EntryPointResponse)
    | _REDIRECTED
    | openapi_examples.problems(429),
)
async def entry_point(
    request: Request, response: Response, broker: BrokerListenerDep
) -> EntryPointResponse | RedirectResponse:
    """Where the documentation and the broker are; a browser is led to the documentation. Open to
    everybody, at `/` too.
    """
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(documentation.PAGE, 303, _VARY)
    response.headers.update(_VARY)
    return EntryPointResponse(
        name="connected-testbed",
        version=version("connected-testbed"),
        documentation=documentation.PAGE,
        openapi=f"{ROOT}/openapi.json",
        health=f"{ROOT}/health",
        broker=broker,
    )


def install(app: FastAPI) -> None:
    """Answer at the other paths of the entry point too, which no client needs to know."""
    for path in ("/", f"{ROOT}/"):
        route = app.get(path, response_model=EntryPointResponse, include_in_schema=False)
        route(entry_point)
