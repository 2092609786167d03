"""The runner's requests to the testbed: its work, images and credentials, its reports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from broker import api_client
from broker.api_client import Api
from broker.deployments.report import RunnerReport
from broker.responses.credentials import MeResponse
from broker.responses.deployments import MaterialResponse, WorkResponse
from broker.server_addresses import ServerAddresses

WAIT_S = 20
"""How long the API holds a request for work back while nothing changes."""
ANSWER_S = 15.0
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RunnerApi:
    """Requests of one runner; all raise Unavailable, and Refused with the API's sentence."""

    api: Api

    async def organisation(self) -> str:
        """The organisation that the runner belongs to."""
        return (await self.api.get("/me", MeResponse)).organisation

    async def work(self, after: str | None) -> WorkResponse:
        """All deployments of the runner; answers late while the list is that of `after`."""
        query = {"after": after, "wait_s": None if after is None else WAIT_S}
        return await self.api.get("/runner/work", WorkResponse, query)

    async def material(self, deployment: int) -> MaterialResponse:
        """A new credential of a deployment, which ends the one before, and its secrets."""
        path = f"/runner/deployments/{deployment}/material"
        return await self.api.send("POST", path, MaterialResponse)

    async def image(self, digest: str) -> AsyncIterator[bytes]:
        """The archive of an image, in pieces."""
        async with self.api.stream(f"/runner/images/{digest}") as response:
            async for piece in response.aiter_bytes(PIECE_BYTES):
                yield piece

    async def report(self, report: RunnerReport) -> None:
        """Report on the runner and its deployments."""
        content = orjson.dumps(report.model_dump(mode="json"))
        headers = {"Content-Type": "application/json"}
        await self.api.request("POST", "/runner/report", content=content, headers=headers)


@asynccontextmanager
async def connect(addresses: ServerAddresses, credential: str) -> AsyncIterator[RunnerApi]:
    """Open a client of the API for a runner."""
    async with api_client.connect(
        addresses.api, credential, ca=addresses.ca, timeout_s=WAIT_S + ANSWER_S
    ) as api:
        yield RunnerApi(api)
