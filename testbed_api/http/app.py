"""The API as one FastAPI app: routes, problems, bounds, and documentation from its own host."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from broker.responses.problems import ProblemResponse
from testbed_api.http import documentation, idempotency, openapi_examples, problems
from testbed_api.http.dependencies import ApiDependencies
from testbed_api.http.middleware.audit import AuditMiddleware
from testbed_api.http.middleware.body_limit import BodyLimitMiddleware
from testbed_api.http.middleware.content_policy import ContentPolicyMiddleware
from testbed_api.http.middleware.idempotency import IdempotencyMiddleware
from testbed_api.http.middleware.rate_limit import RateLimitMiddleware
from testbed_api.http.request_context import ACTION, OPEN, ROOT
from testbed_api.http.routes import (
    access_report,
    audit,
    backup,
    credentials,
    deployment_follow,
    deployments,
    enrolment,
    entry_point,
    equipment,
    grant_acts,
    grants,
    images,
    listings,
    operations,
    organisations,
    pauses,
    recordings,
    retention,
    runner_work,
    runners,
    runs,
    secrets,
    sign_in,
    status,
    streams,
    tokens,
)

_ROOMS = (
    *(equipment, streams, recordings, status, retention, backup),
    *(organisations, credentials, tokens, sign_in),
    *(listings, grants, grant_acts, pauses, access_report, enrolment, audit),
    *(runs, deployments, deployment_follow, images, secrets, runners, runner_work),
)
_DESCRIPTION = """What is shared with you, what is stored of it, and what comes in now.

Every request but this page's, `health`, `sign-in` and the enrolment of gateways and runners carries
`Authorization: Bearer principal.secret`: the button *Authorize* adds it to what you try from here.
Errors are problem+json (RFC 9457) with a stable `code`, a `detail` in a sentence, and often a
`hint`. What is not yours answers as if it were not there."""


_TAGS = [
    {"name": name, "description": description}
    for name, description in {
        "registry": "equipment, its streams and their specs",
        "streams": "samples, stored and live, and what is known to be missing",
        "recordings": "spans of streams that the server keeps as immutable bundles",
        "sharing": "listings, requests, grants and pauses; who could read and who did",
        "organisations": "who takes part, and their members",
        "credentials": "machines, tokens, passwords and signing in",
        "runs": "runs of scenarios, with the origin of each figure",
        "deployments": "prototypes that run beside the machines: what they do, and why they ended",
        "images": "images of prototypes, and their secrets",
        "runners": "the sites that run them: enrolment, their work and their reports",
        "gateways": "enrolment of gateways with a one-time code",
        "keeping": "how long samples are kept, deletion with a proof, backup",
        "audit": "the chain of events and its signed heads",
        "operations": "is it alive, is it ready, what does it count",
    }.items()
]


class ApiApp(FastAPI):
    """The app, whose document describes problems as a model, and the key that each POST takes.

    FastAPI knows no model for the type of problems, and middleware reads the key.
    """

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        schemas.setdefault(ProblemResponse.__name__, ProblemResponse.model_json_schema())
        for path in document["paths"].values():
            _add_key(path.get("post"))
        return document


def _add_key(post: dict[str, Any] | None) -> None:
    """Describe the idempotency key of a POST that takes a credential; once, as FastAPI keeps it."""
    if post is not None and post.get(ACTION, OPEN) != OPEN:
        parameters = post.setdefault("parameters", [])
        if idempotency.PARAMETER not in parameters:
            parameters.append(idempotency.PARAMETER)


def create_app(dependencies: ApiDependencies | None) -> FastAPI:
    """Create the app over its dependencies; without them it serves its OpenAPI document alone."""
    app = ApiApp(
        title="connected-testbed",
        version=version("connected-testbed"),
        description=_DESCRIPTION,
        openapi_url=f"{ROOT}/openapi.json",
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,  # a redirection would go to the host that the request names
    )
    app.state.dependencies = dependencies
    problems.install(app)
    idempotency.install(app)
    quotas, journal, registry, clock = None, None, None, None
    if dependencies is not None:
        quotas, journal = dependencies.quotas, dependencies.journal
        registry, clock = dependencies.registry, dependencies.clock
    app.add_middleware(IdempotencyMiddleware, registry=registry, clock=clock)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(RateLimitMiddleware, root=ROOT, quotas=quotas)
    # the audit is outside of them: it sees what the others refuse
    app.add_middleware(AuditMiddleware, journal=journal, clock=clock)
    app.add_middleware(ContentPolicyMiddleware)
    app.include_router(entry_point.router, prefix=ROOT)
    entry_point.install(app)
    app.include_router(operations.router, prefix=ROOT)
    usual = openapi_examples.problems(400, 401, 403, 404, 413, 422, 429, 503)
    for room in _ROOMS:
        app.include_router(room.router, prefix=ROOT, responses=usual)
    documentation.install(app)
    return app


def openapi_document() -> Mapping[str, Any]:
    """The API's OpenAPI document."""
    return create_app(None).openapi()
