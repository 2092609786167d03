"""Networks, configs, secrets and services of a site on a swarm: made, found by label, removed."""

import asyncio
import base64
import hashlib
import secrets as random
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any

from broker.clock import NS_PER_S, Clock
from testbed_runner.port import ContainerSpec, EngineAway
from testbed_runner.swarm import relay_archive, services, subnets
from testbed_runner.swarm.client import CONFLICT, SwarmClient, SwarmRefused
from testbed_runner.swarm.services import (
    DEPLOYMENT_LABEL,
    ROLE_LABEL,
    SITE_LABEL,
    RelayOrder,
    RelayWay,
    StoredFile,
)

GONE_WITHIN_S = 30.0
POLL_S = 0.1
_SECRET = "secret"  # noqa: S105 - the role of an object


class SwarmObjects:
    """The objects of a site in its swarm beside running programs; raises EngineAway."""

    def __init__(self, client: SwarmClient, site: str, pool: IPv4Network, clock: Clock) -> None:
        """pool: addresses that the site's networks are made of."""
        self._client = client
        self._site = site
        self._pool = pool
        self._clock = clock
        self._allocating = asyncio.Lock()

    async def listed(self, kind: str, deployment: int | None = None) -> list[dict[str, Any]]:
        """All objects of a kind, such as `services`, of the site or of a deployment."""
        labels = [f"{SITE_LABEL}={self._site}"]
        if deployment is not None:
            labels.append(f"{DEPLOYMENT_LABEL}={deployment}")
        return list(await self._client.get(f"/{kind}", filters={"label": labels}) or [])

    async def deployments(self) -> set[int]:
        """The deployments of which anything is there."""
        numbers = set()
        for kind in ("services", "networks", "secrets"):
            for each in await self.listed(kind):
                number = labels_in(each).get(DEPLOYMENT_LABEL, "")
                if number.isdecimal():
                    numbers.add(int(number))
        return numbers

    # --- made -------------------------------------------------------------------------------------

    async def make_network(self, deployment: int) -> tuple[str, IPv4Network]:
        """Make the network of a deployment, with addresses that no other one has."""
        async with self._allocating:
            subnet = subnets.free_inner(self._pool, await self._used())
            token = random.token_hex(4)
            document = services.network(self._site, deployment, subnet, token)
            created = await self._client.call("POST", "/networks/create", body=document)
        return str(created["Id"]), subnet

    async def outer_network(self) -> str:
        """The network by which relays reach the testbed, made if it is not there."""
        async with self._allocating:
            for each in await self.listed("networks"):
                if labels_in(each).get(ROLE_LABEL) == "outer":
                    return str(each["Id"])
            document = services.outer_network(self._site, subnets.outer(self._pool))
            created = await self._client.call("POST", "/networks/create", body=document)
        return str(created["Id"])

    async def relay_order(
        self, image: str, api: RelayWay, broker: RelayWay, authority: bytes | None
    ) -> RelayOrder:
        """The order of all relays, whose files are made if they are not there."""
        archive = await asyncio.to_thread(relay_archive.packed)
        return RelayOrder(
            image=image,
            api=api,
            broker=broker,
            archive=await self._make_config("relay", archive),
            authority=None if authority is None else await self._make_config("ca", authority),
        )

    async def make_secrets(self, spec: ContainerSpec) -> dict[str, StoredFile]:
        """Store the files of a spec as secrets of the swarm, which are in its log encrypted."""
        token = random.token_hex(6)
        labels = services.labels_of(self._site, spec.deployment, _SECRET)
        stored = {}
        for index, (name, content) in enumerate(sorted(spec.files.items())):
            label = f"testbed-{spec.deployment}-{token}-{index}"
            stored[name] = await self._store("secrets", label, content, labels)
        return stored

    async def _make_config(self, what: str, content: bytes) -> StoredFile:
        """A config named by its content: many services share it, and it never changes."""
        name = f"testbed-{what}-{hashlib.sha256(content).hexdigest()[:16]}"
        for each in await self._client.get("/configs", filters={"name": [name]}) or []:
            if each["Spec"]["Name"] == name:
                return StoredFile(each["ID"], name)
        return await self._store("configs", name, content, {ROLE_LABEL: what})

    async def _store(
        self, kind: str, name: str, content: bytes, labels: Mapping[str, str]
    ) -> StoredFile:
        document = {"Name": name, "Labels": dict(labels), "Data": _base64(content)}
        created = await self._client.call("POST", f"/{kind}/create", body=document)
        return StoredFile(created["ID"], name)

    async def _used(self) -> list[IPv4Network]:
        """The subnets of all networks that this node knows, whoever made them."""
        networks = await self._client.get("/networks")
        parts = [
            config.get("Subnet", "")
            for each in networks
            for config in (each.get("IPAM") or {}).get("Config") or []
        ]
        subnets_used = [ip_network(part, strict=False) for part in parts if part]
        return [each for each in subnets_used if isinstance(each, IPv4Network)]

    async def make_service(self, document: Mapping[str, Any]) -> str:
        """Make a service, and return its id."""
        created = await self._client.call("POST", "/services/create", body=dict(document))
        return str(created["ID"])

    async def scale(self, service: str, replicas: int) -> None:
        """Set how many tasks a service has: 0 ends its task."""
        for _ in range(3):  # somebody else may change it meanwhile
            now = await self._client.get(f"/services/{service}")
            spec = now["Spec"] | {"Mode": {"Replicated": {"Replicas": replicas}}}
            params = {"version": now["Version"]["Index"]}
            try:
                await self._client.call(
                    "POST", f"/services/{service}/update", params=params, body=spec
                )
            except SwarmRefused as exc:
                if exc.status != CONFLICT and "out of sequence" not in str(exc):
                    raise
            else:
                return

    # --- removed ----------------------------------------------------------------------------------

    async def remove(self, deployment: int) -> None:
        """Remove all of a deployment; raises EngineAway if something stays in use."""
        deadline_ns = self._clock.monotonic_ns() + round(GONE_WITHIN_S * NS_PER_S)
        for kind in ("services", "containers", "networks", "secrets"):
            while left := await self._left(kind, deployment):
                for each in left if kind != "containers" else ():
                    await self._client.discard(f"/{kind}/{each}")
                if self._clock.monotonic_ns() > deadline_ns:
                    raise EngineAway(
                        f"{kind} of deployment {deployment} stay in use in the swarm",
                        hint="a node that does not answer may hold them: `docker node ls`",
                    )
                await self._clock.sleep(POLL_S)

    async def _left(self, kind: str, deployment: int) -> list[str]:
        """The ids of the objects of a kind; containers are those that run on this node."""
        path = "containers/json" if kind == "containers" else kind
        return [each.get("ID") or each["Id"] for each in await self.listed(path, deployment)]


def labels_in(document: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an object of any kind."""
    spec = document.get("Spec") or document
    return spec.get("Labels") or {}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
