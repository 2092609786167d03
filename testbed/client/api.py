"""Requests of the commands to the API, whose URL and credential come from the environment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker import api_client
from broker.errors import Invalid
from broker.settings import CA, NamedFile


class ApiSettings(BaseSettings):
    """URL of the API, and the caller's credential."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    api: str = Field(default="http://127.0.0.1:8600", description="URL of the testbed's API")
    credential: SecretStr = Field(
        default=SecretStr(""), description="the caller's credential: principal.secret"
    )
    ca: NamedFile = Field(default=None, description=CA)


@asynccontextmanager
async def connect(timeout_s: float = 10.0) -> AsyncIterator[api_client.Api]:
    """Open a connection to the API for several requests; raises Invalid without a credential."""
    settings = ApiSettings()
    credential = settings.credential.get_secret_value()
    if not credential:
        raise Invalid(
            "no credential is set",
            hint="set TESTBED_CREDENTIAL; the first `testbed up` shows the administrator's, and"
            " `testbed organisation create` an owner's",
        )
    async with api_client.connect(
        settings.api, credential, ca=settings.ca, timeout_s=timeout_s
    ) as connection:
        yield connection


async def send_without_credential(
    path: str, answer: type[api_client.Answer], json: object
) -> api_client.Answer:
    """The answer to one POST that is open to everybody, such as signing in."""
    settings = ApiSettings()
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
