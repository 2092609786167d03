"""Connections to the server that a run has started for itself, on this machine."""

from contextlib import AbstractAsyncContextManager

from broker import api_client

ANSWERS_WITHIN_S = 60.0
"""Real time that an answer may take: as the server starts, a busy computer gives it little of its
time, and nobody would be served sooner by an error."""


def connect(url: str, credential: str) -> AbstractAsyncContextManager[api_client.Api]:
    """Open a client of the API; its errors name no setting, as none leads to this server."""
    return api_client.connect(
        url, credential, timeout_s=ANSWERS_WITHIN_S, names=api_client.OWN_SERVER
    )
