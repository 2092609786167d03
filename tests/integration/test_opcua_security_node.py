"""Secured sessions with a second stack: node-opcua's server."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from broker.clock import WallClock
from broker.errors import BedError
from gateway.links.opcua import certificate_trust
from gateway.links.opcua.pki import Pki
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import connected
from tests.integration.machines import linked, mapped
from tests.services import node_opcua
from tests.services.certificates import make
from tests.services.node_opcua import NodeOpcua, Secured

SAFE = "security: sign-and-encrypt, timeout_s: 3"
MS = 1_700_000_000_000
CLOCK = WallClock()

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def credentials(tmp_path: Path) -> ClientCredentials:
    return ClientCredentials(Pki(tmp_path / "pki"), "right", CLOCK)


async def samples(
    server: NodeOpcua, credentials: ClientCredentials, opcua: str = SAFE
) -> list[float]:
    async with linked(mapped(server.url, ["n0"], opcua=opcua), credentials) as (link, sink):
        await sink.until(lambda: link.counts.connects == 1 or bool(sink.said))
        assert sink.said == []
        number = 0
        while not sink.values_of("n0"):
            number += 1
            await asyncio.to_thread(server.write, [("n0", 7, MS + number, 0)])
            await CLOCK.sleep(0.2)
        return sink.values_of("n0")


async def refusal(server: NodeOpcua, credentials: ClientCredentials, opcua: str = SAFE) -> str:
    with pytest.raises(BedError) as caught:
        async with connected(mapped(server.url, ["n0"], opcua=opcua).server, credentials):
            pass
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("Basic256Sha256", "Basic256Sha256"), ("Aes256_Sha256_RsaPss", "Aes256Sha256RsaPss")],
)
async def test_a_pinned_server_is_read(
    credentials: ClientCredentials, tmp_path: Path, theirs, ours
) -> None:
    identity = make()
    with node_opcua.serve(tmp_path, Secured(identity, policies=[theirs])) as server:
        assert "is not trusted" in await refusal(server, credentials, f"{SAFE}, policy: {ours}")
        credentials.pki.pin(server.url, identity.certificate)
        assert set(await samples(server, credentials, f"{SAFE}, policy: {ours}")) == {7.0}


async def test_only_the_right_password_is_let_in(
    credentials: ClientCredentials, tmp_path: Path
) -> None:
    identity = make()
    with node_opcua.serve(tmp_path, Secured(identity, users={"rig": "right"})) as server:
        credentials.pki.pin(server.url, identity.certificate)
        wrong = dataclasses.replace(credentials, password="wrong")
        assert "did not let user 'rig' in" in await refusal(server, wrong, f"{SAFE}, user: rig")
        assert "did not let an anonymous session in" in await refusal(server, credentials)
        assert set(await samples(server, credentials, f"{SAFE}, user: rig")) == {7.0}


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"days": (-30, -1)}, "ended on"),
        ({"host": "other.example"}, "is made for other.example"),
    ],
)
async def test_a_flawed_certificate_is_refused(
    credentials: ClientCredentials, tmp_path: Path, flaw, said
) -> None:
    identity = make(**flaw)
    with node_opcua.serve(tmp_path, Secured(identity)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        assert said in await refusal(server, credentials)


async def test_another_certificate_than_the_pinned_one_is_refused(
    credentials: ClientCredentials, tmp_path: Path
) -> None:
    before, after = make(), make()
    with node_opcua.serve(tmp_path, Secured(after)) as server:
        credentials.pki.pin(server.url, before.certificate)
        said = await refusal(server, credentials)
        assert all(
            certificate_trust.sha256(identity.certificate) in said for identity in (before, after)
        )


@pytest.mark.parametrize(
    ("modes", "policies", "said"),
    [(["None"], ["None"], "it offers none"), (["Sign"], ["Basic256Sha256"], "it offers sign with")],
)
async def test_a_downgrade_is_refused(
    credentials: ClientCredentials, tmp_path: Path, modes, policies, said
) -> None:
    identity = make()
    with node_opcua.serve(tmp_path, Secured(identity, modes, policies)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        assert said in await refusal(server, credentials)
