"""The context of a request: its id, its caller and its audit entry, immutable for each reader.

The ASGI scope holds the newest one: the middleware begins it, the router adds action and target,
authentication the caller.
"""

import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from testbed_api.domain.audit import AuditContext, OtherAction

ACTION = "x-action"
"""The field of a route's OpenAPI description that names the action of the policy."""
OPEN = "open"
"""The action of a route that takes no credential."""
ROOT = "/api/v1"
_OPEN_PATHS = frozenset(
    {
        OtherAction.DOCS,
        OtherAction.ENROLMENTS,
        OtherAction.ENTRY_POINT,
        OtherAction.HEALTH,
        OtherAction.OPENAPI,
        OtherAction.RUNNERS,
        OtherAction.SIGN_IN,
    }
)
"""First words of the paths that take no credential, by which the audit names them."""
_CONTEXT = "testbed.context"


def begin(scope: MutableMapping[str, Any]) -> AuditContext:
    """Give a request its id and its context."""
    source = scope["client"][0] if scope.get("client") else ""
    context = scope[_CONTEXT] = AuditContext(request=secrets.token_hex(8), source=source)
    return context


def current(scope: Mapping[str, Any]) -> AuditContext:
    """The context of a request, with action, target and owner as far as its route is known."""
    context: AuditContext = scope.get(_CONTEXT) or AuditContext()
    path = scope["path"].removeprefix(ROOT)
    route = scope.get("route")
    action = (getattr(route, "openapi_extra", None) or {}).get(ACTION, OPEN)
    return replace(
        context,
        action=open_action(path) if action == OPEN else action,
        target=f"{scope['method']} {path}",
        owner=scope.get("path_params", {}).get("organisation"),
    )


def open_action(path: str) -> str:
    """The action in the audit of a request below the root that needs no right, or has no route."""
    word = path.strip("/").partition("/")[0] or OtherAction.ENTRY_POINT
    return word if word in _OPEN_PATHS else OtherAction.UNKNOWN_ROUTE


def identify(
    scope: MutableMapping[str, Any], principal: str, organisation: str | None = None
) -> AuditContext:
    """Add the caller to the context of a request.

    organisation: None for a caller who is not known, and only claims to be `principal`.
    """
    scope[_CONTEXT] = current(scope).by(principal, organisation)
    return current(scope)
