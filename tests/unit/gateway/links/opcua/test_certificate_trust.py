"""Which certificates are trusted, and the folder that says so."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import NS_PER_S, WallClock
from broker.errors import Refused, Unavailable
from gateway.links.opcua import certificate_trust, pki
from gateway.links.opcua.certificate_trust import PresentedCertificate, TrustedCertificates
from gateway.links.opcua.pki import Pki
from tests.services.certificates import URI, make

URL = "opc.tcp://127.0.0.1:4840"
NOW_NS = WallClock().now_ns()
DAY_NS = 86_400 * NS_PER_S
ROOT = make(uri="urn:root", is_authority=True)
MIDDLE = make(uri="urn:middle", is_authority=True, issuer=ROOT)
LEAF = make(issuer=MIDDLE)


def judged(leaf, *issuers, pin=None, authorities=(), now_ns=NOW_NS) -> str:
    """Why it is refused; empty if it is not."""
    presented = PresentedCertificate(
        url=URL,
        certificate=leaf.certificate,
        issuers=tuple(cert.certificate for cert in issuers),
        application_uri=URI,
    )
    pinned = None if pin is None else pin.certificate
    trusted = TrustedCertificates(pinned, tuple(cert.certificate for cert in authorities))
    try:
        certificate_trust.check(presented, trusted, host="127.0.0.1", now_ns=now_ns)
    except (Refused, Unavailable) as exc:
        return exc.message
    return ""


def test_a_chain_counts_as_far_as_it_is_shown_or_trusted() -> None:
    assert judged(LEAF, MIDDLE, authorities=[ROOT]) == ""
    assert judged(LEAF, authorities=[MIDDLE]) == ""
    assert "not trusted" in judged(LEAF, authorities=[ROOT])
    assert "not trusted" in judged(LEAF, MIDDLE, ROOT)
    assert "not trusted" in judged(LEAF, MIDDLE, ROOT, authorities=[make(is_authority=True)])


def test_an_authority_that_has_ended_signs_nothing() -> None:
    old = make(uri="urn:old", is_authority=True, days=(-30, -1))
    assert "not trusted" in judged(make(issuer=old), authorities=[old])


def test_who_signs_must_be_an_authority() -> None:
    none = make(issuer=ROOT, may_sign=True)
    mute = make(issuer=ROOT, is_authority=True, may_sign=False)
    for issuer in (LEAF, none, mute):
        assert "not trusted" in judged(make(issuer=issuer), issuer, MIDDLE, authorities=[ROOT])


def test_a_certificate_counts_from_its_first_second_to_its_last() -> None:
    identity = make(days=(-1, 30))
    assert judged(identity, pin=identity) == ""
    assert "begins on" in judged(identity, pin=identity, now_ns=NOW_NS - 2 * DAY_NS)
    assert "ended on" in judged(identity, pin=identity, now_ns=NOW_NS + 31 * DAY_NS)


def test_a_sha256_is_known_with_colons_and_without() -> None:
    digest = certificate_trust.sha256(LEAF.certificate)
    assert len(digest.split(":")) == 32
    assert certificate_trust.is_sha256(digest, LEAF.certificate)
    assert certificate_trust.is_sha256(digest.replace(":", "").lower(), LEAF.certificate)
    assert not certificate_trust.is_sha256(digest[:-1], LEAF.certificate)
    assert not certificate_trust.is_sha256("", LEAF.certificate)


def test_what_a_server_says_of_itself_cannot_write_to_a_terminal() -> None:
    presented = PresentedCertificate(
        url=URL,
        certificate=LEAF.certificate,
        issuers=(),
        application_uri="urn:\x1b[2J\n" + "x" * 10_000,
    )
    flaw = certificate_trust.flaw_of(presented, host="127.0.0.1", now_ns=NOW_NS)
    assert flaw is not None
    assert "calls itself urn:?[2J?xxx" in flaw.message
    assert len(flaw.message) < 400


def test_a_certificate_is_read_with_its_issuers_behind_it() -> None:
    chain = LEAF.der + MIDDLE.der + ROOT.der
    assert pki.certificates(chain) == [cert.certificate for cert in (LEAF, MIDDLE, ROOT)]
    assert pki.certificates(b"") == []
    for wrong in (chain[:-1], b"0", b"\x30\x82\x00\x00", os.urandom(50)):
        with pytest.raises(ValueError, match=r"ASN.1|parsing"):
            pki.certificates(wrong)


def test_the_gateways_own_certificate_is_made_once_and_for_itself(tmp_path: Path) -> None:
    folder = Pki(tmp_path / "pki")
    own = folder.own()
    assert folder.own().certificate == own.certificate
    assert own.key.key_size == 2048
    assert own.application_uri.endswith(":connected-testbed:gateway")
    assert own.left_s(NOW_NS) > 4 * 365 * 86_400
    key = own.file.with_name("key.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    key.chmod(0o640)
    with pytest.raises(Refused, match="may be read by others"):
        folder.own()
    key.chmod(0o600)
    own.file.write_bytes(LEAF.der)
    with pytest.raises(Refused, match="are no pair"):
        folder.own()


def test_only_authorities_count_as_authorities(tmp_path: Path) -> None:
    folder = Pki(tmp_path)
    assert folder.trusted(URL) == TrustedCertificates(None, ())
    (tmp_path / "authorities").mkdir()
    file = tmp_path / "authorities" / "one.pem"
    file.write_bytes(ROOT.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "authorities" / "two.der").write_bytes(MIDDLE.der)
    assert folder.trusted(URL).authorities == (ROOT.certificate, MIDDLE.certificate)
    file.write_bytes(LEAF.der)
    with pytest.raises(Refused, match="is no authority's certificate"):
        folder.trusted(URL)
    file.write_text("nothing")
    with pytest.raises(Refused, match="is no certificate"):
        folder.trusted(URL)


def test_a_pin_is_of_one_address_and_is_replaced_whole(tmp_path: Path) -> None:
    folder = Pki(tmp_path / "pki")
    folder.pin(URL, LEAF.certificate)
    folder.pin(URL, ROOT.certificate)
    folder.pin("opc.tcp://[::1]:4840", MIDDLE.certificate)
    assert folder.trusted(URL).pin == ROOT.certificate
    assert folder.trusted("opc.tcp://[::1]:4840").pin == MIDDLE.certificate
    assert folder.trusted("opc.tcp://127.0.0.1:4841").pin is None
    assert len(list((tmp_path / "pki" / "pinned").iterdir())) == 2


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        Pki(tmp_path / "file").own()
    with pytest.raises(Unavailable, match="cannot be used"):
        Pki(tmp_path / "file").pin(URL, LEAF.certificate)
