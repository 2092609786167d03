"""Who an OPC UA server must be, and what it must offer, before there is a session with it."""

import dataclasses
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.ua import SecurityPolicyType
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from broker.clock import WallClock
from broker.errors import BedError, Refused
from gateway import service
from gateway.commissioning import check
from gateway.links.opcua import certificate_trust
from gateway.links.opcua.link import OpcUaLink
from gateway.links.opcua.pki import Pki
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import connected
from gateway.pipeline.pipeline import Pipeline
from tests import services
from tests.integration.machines import (
    Machine,
    RecordingSink,
    Secured,
    linked,
    machine,
    mapped,
    second,
)
from tests.services.certificates import Made, make

SAFE = "security: sign-and-encrypt, timeout_s: 2"
SAFEST = f"{SAFE}, policy: Aes256Sha256RsaPss"
BASIC = SecurityPolicyType.Basic256Sha256_SignAndEncrypt
PSS = SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def credentials(tmp_path: Path) -> ClientCredentials:
    return ClientCredentials(Pki(tmp_path / "pki"), "", WallClock())


def believe(credentials: ClientCredentials, authority: Made) -> None:
    """As its owner puts it there by hand."""
    folder = credentials.pki.folder / "authorities"
    folder.mkdir(parents=True)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))


async def samples(
    server: Machine, credentials: ClientCredentials, opcua: str = SAFE
) -> list[float]:
    """What a link reads of two values that are written."""
    async with linked(mapped(server.url, ["a"], opcua=opcua), credentials) as (_, sink):
        await sink.until(lambda: bool(server.subscriptions) or bool(sink.said))
        assert sink.said == []
        for number in (1.0, 2.0):
            await server.write(second(number), a=number)
        await sink.until(lambda: 2.0 in sink.values_of("a"))
        return sink.values_of("a")


async def refusal(server: Machine, credentials: ClientCredentials, opcua: str = SAFE) -> str:
    """The sentence with which the server is refused; there was no session."""
    sentence = await refused(server.url, credentials, opcua)
    assert server.sessions == 0
    return sentence


async def refused(url: str, credentials: ClientCredentials, opcua: str = SAFE) -> str:
    read = mapped(url, ["a"], opcua=opcua)
    with pytest.raises(BedError) as caught:
        async with connected(read.server, credentials):
            pass
    (finding,) = (await check.check(read, credentials)).findings
    assert finding.sentence == str(caught.value)
    assert caught.value.hint
    return caught.value.message


# --- good ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "opcua"), [(BASIC, SAFE), (PSS, SAFEST)])
async def test_a_pinned_server_is_read(credentials: ClientCredentials, policy, opcua) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, [policy])) as server:
        credentials.pki.pin(server.url, identity.certificate)
        await server.write(second(0), a=1.0)
        report = await check.check(
            mapped(server.url, ["a"], opcua=opcua), credentials, listen_s=0.5
        )
        assert report.findings == []
        assert (await samples(server, credentials, opcua))[-2:] == [1.0, 2.0]


async def test_a_server_of_a_trusted_authority_is_read(credentials: ClientCredentials) -> None:
    authority = make(uri="urn:test:ca", is_authority=True)
    believe(credentials, authority)
    async with machine(["a"], secured=Secured(make(issuer=authority))) as server:
        assert await samples(server, credentials) == [1.0, 2.0]


async def test_certificates_that_end_soon_are_an_alarm_while_the_server_is_read(
    credentials: ClientCredentials,
) -> None:
    authority = make(uri="urn:test:ca", is_authority=True, days=(-1, 20))
    believe(credentials, authority)
    async with machine(["a"], secured=Secured(make(issuer=authority, days=(-1, 6)))) as server:
        read = mapped(server.url, ["a"], opcua=SAFE)
        async with linked(read, credentials) as (link, sink):
            await sink.until(lambda: link.counts.connects == 1)
            await sink.until(lambda: server.url in sink.alarms.get("certificates", ""))
    own, *others = sink.alarms["certificates"].split("; ")
    assert own.startswith(f"the certificate of {server.url} ends within 7 days, on ")
    assert "the certificate of the authority CN=urn:test:ca ends within 30" in " ".join(others)


async def test_a_pinned_certificate_that_has_ended_is_an_alarm_beside_the_refusal(
    credentials: ClientCredentials,
) -> None:
    over = make(days=(-30, -1))
    async with machine(["a"], secured=Secured(over)) as server:
        credentials.pki.pin(server.url, over.certificate)
        async with linked(mapped(server.url, ["a"], opcua=SAFE), credentials) as (_, sink):
            sink._last_ns[0] = 1  # read before, so that the link goes on asking
            await sink.until(lambda: "server" in sink.alarms)
    assert sink.alarms["certificates"].startswith(f"the certificate of {server.url} ended on ")


async def test_a_user_signs_in_with_a_password(credentials: ClientCredentials) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, users={"rig": "Grüße"})) as server:
        credentials.pki.pin(server.url, identity.certificate)
        right = dataclasses.replace(credentials, password="Grüße")
        assert await samples(server, right, f"{SAFE}, user: rig") == [1.0, 2.0]


async def test_the_gateways_own_certificate_signs_in(credentials: ClientCredentials) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, user_certificates=True)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        assert await samples(server, credentials, f"{SAFE}, user_certificate: true") == [1.0, 2.0]


async def test_a_certificate_for_another_name_counts_where_the_mapping_names_it(
    credentials: ClientCredentials,
) -> None:
    identity = make(host="plc-1")
    async with machine(["a"], secured=Secured(identity)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        assert await samples(server, credentials, f"{SAFE}, certificate_host: PLC-1") == [1.0, 2.0]


# --- certificates that are no good ---------------------------------------------------------------

FLAWED = [
    ({"days": (-30, -1)}, "ended on"),
    ({"days": (1, 30)}, "begins on"),
    ({"host": "other.example"}, "is made for other.example, and not for 127.0.0.1"),
    ({"host": "127.0.0.2"}, "is made for 127.0.0.2, and not for 127.0.0.1"),
    ({"uri": "urn:test:rogue"}, "calls itself urn:test:server, and its certificate is of urn:test"),
    ({"bits": 1024}, "has a key of 1024 bits"),
    ({"purpose": ExtendedKeyUsageOID.CLIENT_AUTH}, "is not made for servers"),
]


@pytest.mark.parametrize(("flaw", "said"), FLAWED)
async def test_a_flawed_certificate_is_refused_whoever_trusts_it(
    credentials: ClientCredentials, flaw, said
) -> None:
    authority = make(uri="urn:test:ca", is_authority=True)
    identity = make(issuer=authority, **flaw)
    believe(credentials, authority)
    async with machine(["a"], secured=Secured(identity)) as server:
        assert said in await refusal(server, credentials)
        credentials.pki.pin(server.url, identity.certificate)
        assert said in await refusal(server, credentials)


async def test_a_self_signed_certificate_that_is_not_pinned_is_refused(
    credentials: ClientCredentials,
) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity)) as server:
        said = await refusal(server, credentials)
        assert "is not trusted" in said
        assert certificate_trust.sha256(identity.certificate) in said


async def test_a_server_that_is_not_trusted_hears_of_no_session(
    credentials: ClientCredentials,
) -> None:
    async with machine(["a"], secured=Secured(make())) as server:

        def never(*_given, **_named) -> None:
            raise AssertionError("a session was asked for")

        server.server.iserver.create_session = never
        assert "is not trusted" in await refusal(server, credentials)


async def test_a_pin_counts_at_its_address_alone(credentials: ClientCredentials) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity)) as server:
        credentials.pki.pin(f"opc.tcp://{services.LOOPBACK}:1", identity.certificate)
        assert "is not trusted" in await refusal(server, credentials)


async def test_a_certificate_of_a_rogue_authority_is_refused(
    credentials: ClientCredentials,
) -> None:
    believe(credentials, make(uri="urn:test:ca", is_authority=True))
    rogue = make(uri="urn:test:ca", is_authority=True)
    async with machine(["a"], secured=Secured(make(issuer=rogue))) as server:
        assert "is not trusted" in await refusal(server, credentials)


async def test_a_trusted_servers_certificate_makes_no_authority(
    credentials: ClientCredentials,
) -> None:
    authority = make(uri="urn:test:ca", is_authority=True)
    believe(credentials, authority)
    server_of_it = make(issuer=authority)
    async with machine(["a"], secured=Secured(make(issuer=server_of_it))) as server:
        assert "is not trusted" in await refusal(server, credentials)


async def test_another_certificate_than_the_pinned_one_is_an_alarm_with_both(
    credentials: ClientCredentials,
) -> None:
    authority = make(uri="urn:test:ca", is_authority=True)
    believe(credentials, authority)
    before, after = make(), make(issuer=authority)  # a trusted authority's is no excuse
    async with machine(["a"], secured=Secured(after)) as server:
        credentials.pki.pin(server.url, before.certificate)
        said = await refusal(server, credentials)
        assert "has changed" in said
        async with linked(mapped(server.url, ["a"], opcua=SAFE), credentials) as (link, sink):
            await sink.until(lambda: "server" in sink.alarms)
            for identity in (before, after):
                assert certificate_trust.sha256(identity.certificate) in sink.alarms["server"]
            assert (link.counts.connects, server.sessions) == (0, 0)


async def test_a_server_that_shows_the_pinned_certificate_without_its_key_is_refused(
    credentials: ClientCredentials,
) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, key=make().key)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        assert "opened no secured session" in await refusal(server, credentials)


async def test_what_a_server_calls_itself_inside_counts_as_well(
    credentials: ClientCredentials,
) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        get_endpoints = server.server.iserver.get_endpoints

        async def two_faced(*given, **named):
            endpoints = await get_endpoints(*given, **named)
            for endpoint in endpoints if len(given) == 2 else ():  # a session's request
                endpoint.Server.ApplicationUri = "urn:test:other"
            return endpoints

        server.server.iserver.get_endpoints = two_faced
        assert "calls itself urn:test:other" in await refusal(server, credentials)


# --- less than was asked for ---------------------------------------------------------------------

LESS = [
    ([SecurityPolicyType.NoSecurity], SAFE, "it offers none"),
    ([SecurityPolicyType.Basic256Sha256_Sign], SAFE, "it offers sign with Basic256Sha256"),
    ([SecurityPolicyType.NoSecurity, BASIC], SAFEST, "it offers none, sign-and-encrypt with Basic"),
    (
        [SecurityPolicyType.Basic256_SignAndEncrypt],
        SAFE,
        "it offers sign-and-encrypt with Basic256",
    ),
]


@pytest.mark.parametrize(("policies", "opcua", "said"), LESS)
async def test_a_downgrade_is_refused(
    credentials: ClientCredentials, policies, opcua, said
) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, policies)) as server:
        credentials.pki.pin(server.url, identity.certificate)
        sentence = await refusal(server, credentials, opcua)
        assert "does not offer sign-and-encrypt with" in sentence
        assert said in sentence


async def test_a_server_that_wants_security_is_not_read_without(
    credentials: ClientCredentials,
) -> None:
    async with machine(["a"], secured=Secured(make())) as server:
        said = await refusal(server, credentials, "security: none")
        assert "wants security: it offers sign-and-encrypt with Basic256Sha256" in said


# --- who signs in --------------------------------------------------------------------------------


async def test_a_password_that_is_not_set_ends_the_link(credentials: ClientCredentials) -> None:
    own, unset = make(), dataclasses.replace(credentials, password="")
    async with machine(["a"], secured=Secured(own, users={"rig": "right"})) as server:
        credentials.pki.pin(server.url, own.certificate)
        mapping = mapped(server.url, ["a"], opcua=f"{SAFE}, user: rig")
        with pytest.raises(Refused, match=r"user 'rig' of .* has no password"):
            await OpcUaLink(mapping, RecordingSink(), WallClock(), unset).run()


async def test_a_server_that_wants_a_user_says_so_without_security() -> None:
    open_policy = [SecurityPolicyType.NoSecurity]
    async with machine(["a"], secured=Secured(make(), open_policy, users={"rig": "x"})) as server:
        with pytest.raises(Refused) as raised:
            async with connected(mapped(server.url, ["a"]).server):
                pass
        assert "lets nobody in without a user" in raised.value.message


async def test_a_wrong_password_opens_no_session(credentials: ClientCredentials) -> None:
    identity = make()
    async with machine(["a"], secured=Secured(identity, users={"rig": "right"})) as server:
        credentials.pki.pin(server.url, identity.certificate)
        wrong = dataclasses.replace(credentials, password="wrong")
        said = await refusal(server, wrong, f"{SAFE}, user: rig")
        assert "did not let user 'rig' in" in said
        assert "wrong" not in said
        assert "has no password" in await refusal(server, credentials, f"{SAFE}, user: rig")
        assert "did not let an anonymous session in" in await refusal(server, credentials)


async def test_a_server_that_does_not_trust_the_gateway_is_told_where_its_certificate_lies(
    credentials: ClientCredentials,
) -> None:
    identity = make()

    async def nobody(_certificate, _description) -> None:
        raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

    async with machine(["a"], secured=Secured(identity)) as server:
        server.server.set_certificate_validator(nobody)
        credentials.pki.pin(server.url, identity.certificate)
        assert "does not accept the gateway's own certificate" in await refusal(server, credentials)
        with pytest.raises(Refused) as caught:
            async with connected(mapped(server.url, ["a"], opcua=SAFE).server, credentials):
                pass
        assert str(credentials.pki.own().file) in caught.value.hint


async def test_the_gateways_own_certificate_does_not_outlive_its_end(
    credentials: ClientCredentials,
) -> None:
    class Later(WallClock):
        def now_ns(self) -> int:
            return super().now_ns() + 6 * 365 * 86_400 * 10**9

    late = dataclasses.replace(credentials, clock=Later())
    async with machine(["a"], secured=Secured(make())) as server:
        assert "own certificate" in await refusal(server, late)


# --- without security ----------------------------------------------------------------------------


@pytest.mark.parametrize(("opcua", "warnings"), [("security: none", 1), (SAFE, 0)])
def test_reading_without_security_is_logged_at_each_start(tmp_path, opcua, warnings) -> None:
    read = mapped("opc.tcp://127.0.0.1:1", ["a"], opcua=opcua)
    clock = WallClock()
    pipeline = Pipeline(
        read, [stream.spec for stream in read.streams], clock=clock, space="live", most_waiting=1
    )
    with capture_logs() as logged:
        service.build_link(read, pipeline, clock, tmp_path, waiting_messages=100)
    said = [line for line in logged if line["event"] == "server is read without security"]
    assert [line["log_level"] for line in said] == ["warning"] * warnings
