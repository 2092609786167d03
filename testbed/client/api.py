"""Requests of the commands to the API, whose URL and credential come from the environment."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from broker import api_client
from broker.errors import Invalid
from broker.process import files

DEFAULT_API = "http://127.0.0.1:8600"
MOST_CREDENTIAL = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """URL of the API, the caller's credential, and the PEM file of a certificate authority.

    Read without pydantic-settings, which takes long to load beside a short request.
    """

    api: str = DEFAULT_API
    credential: str = field(default="", repr=False)
    ca: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read TESTBED_API, TESTBED_CA and TESTBED_CREDENTIAL, or the file of the last; or Invalid.

        The credential wins over its file; an empty variable counts as one that is not set.
        """
        file, ca = environment.get("TESTBED_CREDENTIAL_FILE"), environment.get("TESTBED_CA")
        credential = environment.get("TESTBED_CREDENTIAL", "")
        if file and not credential:
            what = f"TESTBED_CREDENTIAL_FILE: the secret in {file}"
            credential = files.read_secret(Path(file), what, most=MOST_CREDENTIAL)
        return cls(
            api=environment.get("TESTBED_API") or DEFAULT_API,
            credential=credential,
            ca=Path(ca) if ca else None,
        )


@asynccontextmanager
async def connect(timeout_s: float = 10.0) -> AsyncIterator[api_client.Api]:
    """Open a connection to the API for several requests; raises Invalid without a credential."""
    settings = ApiSettings.from_environment(os.environ)
    if not settings.credential:
        raise Invalid(
            "no credential is set",
            hint="set TESTBED_CREDENTIAL; `testbed up` shows the administrator's, and `testbed"
            " organisation create` an owner's",
        )
    async with api_client.connect(
        settings.api, settings.credential, ca=settings.ca, timeout_s=timeout_s
    ) as connection:
        yield connection


async def send_without_credential(
    path: str, answer: type[api_client.Answer], json: object
) -> api_client.Answer:
    """The answer to one POST that is open to everybody, such as signing in."""
    settings = ApiSettings.from_environment(os.environ)
    async with api_client.connect(settings.api, "", ca=settings.ca) as connection:
        return await connection.send("POST", path, answer, json)


async def send(
    method: str, path: str, answer: type[api_client.Answer], json: object = None
) -> api_client.Answer:
    """The answer to one request with a JSON body."""
    async with connect() as connection:
        return await connection.send(method, path, answer, json)


async def get(
    path: str, answer: type[api_client.Answer], params: api_client.Params | None = None
) -> api_client.Answer:
    """The answer to one GET."""
    async with connect() as connection:
        return await connection.get(path, answer, params)


async def whole(
    path: str,
    page: type[api_client.Page],
    params: api_client.Params | None = None,
    *,
    most: int | None = None,
) -> api_client.Page:
    """A listing as one page with the items of all; most: of so many at most, None for all."""
    async with connect() as connection:
        return await connection.whole(path, page, params, most=most)


async def request(method: str, path: str, json: object = None) -> None:
    """Send one request whose answer is empty."""
    async with connect() as connection:
        await connection.request(method, path, json=json)
