"""Organisations of a test: a founded one each, and credentials of their machines."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker import api_client
from broker.namespace import LIVE, StreamAddress


@dataclass(frozen=True, slots=True)
class Owners:
    """The owners' clients by organisation; `request` asks as the first one's."""

    doors: Mapping[str, api_client.Api]
    secrets: Mapping[str, str]

    @property
    def secret(self) -> str:
        """The first one's credential."""
        return next(iter(self.secrets.values()))

    async def request(self, method: str, path: str, **content: Any) -> Any:
        """What the first owner is answered."""
        return await next(iter(self.doors.values())).request(method, path, **content)

    async def credential(
        self,
        principal: str,
        *,
        reads: Iterable[StreamAddress] = (),
        writes: Iterable[StreamAddress] = (),
        space: str = LIVE,
    ) -> str:
        """A machine of whose streams it writes, or else reads; what it reads of others is granted.

        One that holds nothing belongs to the last organisation.
        """
        listed = [*writes, *reads]
        mine = listed[0].organisation if listed else list(self.doors)[-1]
        for stream in reads:
            if stream.organisation != mine:
                body = {"company": mine, "streams": [_entry(space, stream)]}
                await self.doors[stream.organisation].request("POST", "/grants", json=body)
        body = {
            "principal": principal,
            "reads": [_entry(space, each) for each in reads],
            "writes": [_entry(space, each) for each in writes],
        }
        created = await self.doors[mine].request("POST", "/credentials", json=body)
        return str(created["credential"])


@asynccontextmanager
async def founded(
    url: str, administrator: str, organisations: Iterable[str] = ("factory", "company")
) -> AsyncIterator[Owners]:
    """Make these organisations, and connect a client for the owner of each."""
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(api_client.connect(url, administrator))
        secrets = {
            each: await door.create_organisation(each, owner=f"{each}-owner", kind="partner")
            for each in organisations
        }
        doors = {
            each: await stack.enter_async_context(api_client.connect(url, secret))
            for each, secret in secrets.items()
        }
        yield Owners(doors, secrets)


def _entry(space: str, stream: StreamAddress) -> dict[str, str]:
    return {"space": space, "stream": str(stream)}
