"""Which doors have TLS: nothing is open without it unless somebody says so."""

from pathlib import Path

import pytest

from broker.errors import Invalid
from testbed_api import certificates
from testbed_api.certificates import Doors
from testbed_api.settings import ServerSettings

CERT, KEY = Path("cert.pem"), Path("key.pem")
OPEN = ("127.0.0.1", "::1", "localhost", "127.8.8.8")
REACHABLE = ("0.0.0.0", "::", "10.0.0.5", "testbed.example", "localhost.example")  # noqa: S104 - said, not listened on


def shown(**told):
    return certificates.of(ServerSettings(**{"tls_cert_file": None, "tls_key_file": None} | told))


@pytest.mark.parametrize("host", OPEN)
def test_on_loopback_no_certificate_is_asked_for(host):
    assert shown(host=host) == Doors()


@pytest.mark.parametrize("host", REACHABLE)
def test_elsewhere_a_server_without_one_does_not_start_unless_that_is_said(host):
    with pytest.raises(Invalid, match="without TLS") as told:
        shown(host=host)
    assert "TESTBED_TLS_CERT_FILE" in told.value.hint
    assert "TESTBED_TLS=none" in told.value.hint
    assert shown(host=host, tls="none") == Doors()


@pytest.mark.parametrize("host", [*OPEN, *REACHABLE])
def test_a_certificate_is_shown_at_both_doors_wherever_they_are(host):
    found = shown(host=host, tls_cert_file=CERT, tls_key_file=KEY)
    assert found.api == found.broker == certificates.Certificate(CERT, KEY)
    assert found.ca is None


def test_our_own_authority_has_one_a_door():
    found = shown(folder=Path("data"), tls="development", host="10.0.0.5")
    assert found.api == certificates.Certificate(
        Path("data/pki/api.pem"), Path("data/pki/api-key.pem")
    )
    assert found.broker.chain == Path("data/pki/broker.pem")
    assert found.ca == Path("data/pki/ca.pem")


@pytest.mark.parametrize(
    "told",
    [
        {"tls_cert_file": CERT},
        {"tls_key_file": KEY},
        {"tls_cert_file": CERT, "tls_key_file": KEY, "tls": "none"},
        {"tls_cert_file": CERT, "tls_key_file": KEY, "tls": "development"},
    ],
)
def test_what_contradicts_itself_is_refused(told):
    with pytest.raises(Invalid, match=r"TESTBED_TLS_CERT_FILE|belong together"):
        shown(**told)
