"""A company with an image, a factory that granted it a rig, and a site's runner, over HTTP."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import enrolment
from broker.clock import WallClock
from broker.rights import Entry, Role, Span
from testbed_api.domain.deployments import PinnedImage
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.runs import HandedRun, RunContent
from tests.integration.api_bed import RIG, Bed

MIB = 2**20
DIGEST = f"sha256:{'a' * 64}"
IMAGE = PinnedImage(digest=DIGEST, name="watch.tar", kind="archive", architecture="amd64")
MANIFEST: dict[str, Any] = {
    "prototype": "watch",
    "image": {"archive": "watch.tar"},
    "command": "python prototype.py",
    "inputs": {"rig": str(RIG)},
    "outputs": {"score": {"signals": {"score": {"unit": "1"}}}},
    "resources": {"memory": "256 MiB", "cpu": 0.5, "log": "64 KiB"},
    "health": {"starts_within": "20s"},
}
SITE = {
    "product": "docker",
    "version": "28",
    "architecture": "x86_64",
    "takes_work": True,
    "cpu": 2.0,
    "memory_bytes": 1024 * MIB,
}


@dataclass
class Site:
    """A runner that is written by hand: it asks the API as one, and starts nothing."""

    bed: Bed
    credential: dict[str, str]
    state: dict[str, Any]

    async def report(self, *deployments: dict[str, Any], **state: Any) -> None:
        body = self.state | state | {"deployments": list(deployments)}
        answer = await self.bed.ask(self.credential, "POST", "/runner/report", json=body)
        assert answer.status_code == 204, answer.text

    async def work(self, after: str | None = None, wait_s: float = 0) -> dict[str, Any]:
        query = {"wait_s": wait_s} | ({} if after is None else {"after": after})
        answer = await self.bed.ask(self.credential, "GET", "/runner/work", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Wait for other work while the body changes something; gets its items, within a second."""
        before, items = await self.work(), list[dict[str, Any]]()
        now_s = asyncio.get_running_loop().time

        async def wait() -> None:
            items.extend((await self.work(before["revision"], 20))["items"])

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(wait(), name="work")
            await WallClock().sleep(0.1)
            assert not task.done()
            yield items
            changed_s = now_s()
        assert now_s() - changed_s < 1

    async def items(self) -> dict[int, dict[str, Any]]:
        return {each["id"]: each for each in (await self.work())["items"]}

    async def material(self, number: int) -> httpx.Response:
        return await self.bed.ask(self.credential, "POST", f"/runner/deployments/{number}/material")

    async def events(self, number: int, *states: Any, first: int = 1) -> None:
        """States, one after the other, or events as they are."""
        events = []
        for at, state in enumerate(states, first):
            event = state if isinstance(state, dict) else {"state": state}
            events.append({"number": at, "at_ns": self.bed.clock.now_ns()} | event)
        await self.report({"id": number, "events": events})


@dataclass
class Deploying:
    bed: Bed
    cora: dict[str, str]
    grant: GrantRequest

    async def deploy(self, stage: str = "live", **more: Any) -> httpx.Response:
        manifest = MANIFEST | more.pop("manifest", {})
        body = {"manifest": manifest, "stage": stage, "digest": DIGEST} | more
        path = "/organisations/company/deployments"
        return await self.bed.ask(self.cora, "POST", path, json=body)

    async def deployed(self, stage: str = "live", **more: Any) -> dict[str, Any]:
        answer = await self.deploy(stage, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def show(self, number: int) -> dict[str, Any]:
        answer = await self.bed.ask(self.cora, "GET", f"/deployments/{number}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def site(self, owner: dict[str, str], name: str = "site-1", **wanted: Any) -> Site:
        answer = await self.bed.ask(owner, "POST", "/runners", json={"id": name} | wanted)
        assert answer.status_code == 201, answer.text
        answer = await self.bed.ask({}, "POST", "/runners/enrol", json=claim(answer.json()["code"]))
        assert answer.status_code == 201, answer.text
        credential = {"Authorization": f"Bearer {answer.json()['credential']}"}
        site = Site(self.bed, credential, SITE)
        await site.report()
        return site

    async def give(self, until_ns: int | None = None) -> None:
        """Grant the rig to the company."""
        now_ns = self.bed.clock.now_ns()
        wanted = GrantRequest("company", Entry("live", RIG), "", now_ns, "cora")
        request = await self.bed.registry.grants.add(wanted)
        self.grant = request.granted(Span(now_ns, until_ns), "fay", now_ns)
        await self.bed.registry.grants.update(self.grant, request)


def claim(code: str, key: Ed25519PrivateKey | None = None) -> dict[str, str]:
    key = key or Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(enrolment.statement(code, public))
    return {
        "code": code,
        "public_key": base64.b64encode(public).decode(),
        "signature": base64.b64encode(signature).decode(),
    }


def passed_run(**changes: Any) -> HandedRun:
    """A run of the company that passed."""
    run = HandedRun(
        organisation="company",
        scenario="valve-closes",
        label="seed 1",
        seed=1,
        passed=True,
        began_ns=0,
        ended_ns=0,
        handed_ns=0,
        handed_by="cora",
        scenario_sha256="",
        samples_sha256="",
        sha256="a" * 64,
    )
    return replace(run, **changes)


@pytest.fixture
async def deploying(bed, rig) -> Deploying:
    assert rig.address == RIG
    cora = await bed.person("cora", "company", Role.DEVELOPER)
    opened = Deploying(bed, cora, GrantRequest("company", Entry("live", RIG), "", 0))
    await opened.give()
    await bed.registry.images.add("company", replace(IMAGE, pushed_by="cora"))
    tried = RunContent(record=b"{}", digests=frozenset({DIGEST}))
    await bed.registry.runs.add(passed_run(), tried)
    return opened


@pytest.fixture
async def site(deploying, admin) -> Site:
    """The intermediary's, which everybody may use."""
    return await deploying.site(admin)
