"""How commands ask the API: where it is and who asks, from the environment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker import api_client
from broker.errors import Invalid
from broker.settings import CA, NamedFile


class ApiSettings(BaseSettings):
    """Where the API is, and who asks."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    api: str = Field(default="http://127.0.0.1:8600", description="URL of the testbed's API")
    credential: SecretStr = Field(default=SecretStr(""), description="who asks: principal.secret")
    ca: NamedFile = Field(default=None, description=CA)


@asynccontextmanager
async def door(timeout_s: float = 10.0) -> AsyncIterator[api_client.Api]:
    """The API, for several questions; raises Invalid if no credential is set."""
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
    ) as one:
        yield one


async def ask_openly(method: str, path: str, **content: Any) -> Any:
    """One question that needs no credential."""
    settings = ApiSettings()
    async with api_client.connect(settings.api, "", ca=settings.ca) as one:
        return await one.request(method, path, **content)


async def everything(path: str, **params: Any) -> list[Any]:
    """All items of a listing that comes in pages."""
    async with door() as one:
        return await one.items(path, **params)


async def ask(method: str, path: str, **content: Any) -> Any:
    """One question."""
    async with door() as one:
        return await one.request(method, path, **content)
