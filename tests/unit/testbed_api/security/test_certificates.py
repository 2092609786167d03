"""TLS of API and broker: without it they listen on loopback only, unless told otherwise."""

from pathlib import Path

import pytest

from broker.clock import NS_PER_S, WallClock
from broker.errors import Invalid
from testbed.server import pki
from testbed_api.security import certificates
from testbed_api.security.certificates import ServerCertificates
from testbed_api.settings import ServerSettings

CERT, KEY = Path("cert.pem"), Path("key.pem")
OPEN = ("127.0.0.1", "::1", "localhost", "127.8.8.8")
REACHABLE = ("0.0.0.0", "::", "10.0.0.5", "testbed.example", "localhost.example")  # noqa: S104 - said, not listened on


def chosen(**options):
    unset = {"tls_cert_file": None, "tls_key_file": None}
    return certificates.from_settings(ServerSettings(**unset | options))


@pytest.mark.parametrize("host", OPEN)
def test_on_loopback_no_certificate_is_asked_for(host):
    assert chosen(host=host) == ServerCertificates()


@pytest.mark.parametrize("host", REACHABLE)
def test_elsewhere_a_server_without_one_does_not_start_unless_that_is_said(host):
    with pytest.raises(Invalid, match="without TLS") as error:
        chosen(host=host)
    assert "TESTBED_TLS_CERT_FILE" in error.value.hint
    assert "TESTBED_TLS=none" in error.value.hint
    assert chosen(host=host, tls="none") == ServerCertificates()


@pytest.mark.parametrize("host", [*OPEN, *REACHABLE])
def test_a_certificate_is_shown_at_both_doors_wherever_they_are(host):
    configured = chosen(host=host, tls_cert_file=CERT, tls_key_file=KEY)
    assert configured.api == configured.broker == certificates.Certificate(CERT, KEY)
    assert configured.ca is None


def test_our_own_authority_has_one_a_door():
    configured = chosen(folder=Path("data"), tls="development", host="10.0.0.5")
    assert configured.api == certificates.Certificate(
        Path("data/pki/api.pem"), Path("data/pki/api-key.pem")
    )
    assert configured.broker.chain == Path("data/pki/broker.pem")
    assert configured.ca == Path("data/pki/ca.pem")


@pytest.mark.parametrize(
    "options",
    [
        {"tls_cert_file": CERT},
        {"tls_key_file": KEY},
        {"tls_cert_file": CERT, "tls_key_file": KEY, "tls": "none"},
        {"tls_cert_file": CERT, "tls_key_file": KEY, "tls": "development"},
    ],
)
def test_what_contradicts_itself_is_refused(options):
    with pytest.raises(Invalid, match=r"TESTBED_TLS_CERT_FILE|belong together"):
        chosen(**options)


def test_a_certificate_for_another_host_or_of_another_time_is_refused_at_the_start(tmp_path):
    now_ns = WallClock().now_ns()
    pki.init(tmp_path, ["testbed.example"], now_ns)
    own = certificates.certificate_in(tmp_path, "api")
    used = ServerCertificates(api=own, broker=own)
    for host in ("testbed.example", "Testbed.example", "localhost", "0.0.0.0", ""):  # noqa: S104
        certificates.check(used, now_ns, host)
    with pytest.raises(
        Invalid, match=r"api\.pem is not for other\.example, but for localhost, test"
    ):
        certificates.check(used, now_ns, "other.example")
    with pytest.raises(Invalid, match=r"api\.pem is not valid before 20"):
        certificates.check(used, now_ns - 86_400 * NS_PER_S)
