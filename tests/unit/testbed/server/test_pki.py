"""The development authority: which certificates `pki.init` creates, leaves and refuses."""

import ssl

import pytest

from broker import tls
from broker.clock import NS_PER_S
from broker.errors import Invalid, Refused
from testbed.server import pki
from testbed_api.security import certificates

NOW_NS = 1_800_000_000 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S


def init(folder, *hosts, now_ns=NOW_NS):
    return pki.init(folder, hosts, now_ns)


def test_both_doors_are_for_this_machine_and_the_hosts_given(tmp_path):
    certificate_files = init(tmp_path / "pki", "Testbed.example", "10.0.0.5")
    assert [certificate.file.name for certificate in certificate_files] == [
        "ca.pem",
        "api.pem",
        "broker.pem",
    ]
    assert all(each.created and not each.expires_soon for each in certificate_files)
    for server in certificate_files[1:]:
        named = certificates.host_names(certificates.read(server.file))
        assert named == ["localhost", "testbed.example", "127.0.0.1", "::1", "10.0.0.5"]
        tls.server_context(certificates.certificate_in(server.file.parent, server.file.stem))


def test_only_their_owner_reads_the_keys(tmp_path):
    data = tmp_path / "data"
    init(data / "pki")
    assert {path.stat().st_mode & 0o777 for path in (data, data / "pki")} == {0o700}
    keys = sorted((data / "pki").glob("*-key.pem"))
    assert [key.name for key in keys] == ["api-key.pem", "broker-key.pem", "ca-key.pem"]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_what_is_there_stays_and_what_lacks_is_made(tmp_path):
    init(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert not any(each.created for each in init(tmp_path))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "api.pem").unlink()
    assert [each.created for each in init(tmp_path)] == [False, True, False]
    assert (tmp_path / "broker-key.pem").read_bytes() == before["broker-key.pem"]


def test_one_that_ends_within_a_month_is_said(tmp_path):
    init(tmp_path)
    later_ns = NOW_NS + pki.VALIDITY.days * DAY_NS
    assert [each.expires_soon for each in init(tmp_path, now_ns=later_ns - 31 * DAY_NS)] == [
        False
    ] * 3
    assert [each.expires_soon for each in init(tmp_path, now_ns=later_ns - 29 * DAY_NS)] == [
        False,
        True,
        True,
    ]


def test_a_certificate_for_other_hosts_or_of_another_authority_is_not_passed_over(tmp_path):
    init(tmp_path / "ours")
    with pytest.raises(Refused, match=r"is not for testbed\.example"):
        init(tmp_path / "ours", "testbed.example")
    init(tmp_path / "theirs")
    (tmp_path / "theirs" / "ca.pem").rename(tmp_path / "ours" / "ca.pem")
    with pytest.raises(Refused, match="is not of the authority"):
        init(tmp_path / "ours")


def test_without_the_authoritys_key_nothing_new_is_signed(tmp_path):
    init(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    assert not any(each.created for each in init(tmp_path))  # it may be kept elsewhere
    (tmp_path / "api.pem").unlink()
    with pytest.raises(Invalid, match=r"ca-key\.pem is not there"):
        init(tmp_path)


@pytest.mark.parametrize("host", ["", "a b", "*.example", "https://x", "host:80", "-x", "a" * 300])
def test_what_is_no_host_is_refused(tmp_path, host):
    with pytest.raises(Invalid, match="is no host"):
        init(tmp_path / "pki", host)
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "api-key.pem").write_text("rot"), "do not fit"),
        (lambda folder: (folder / "api-key.pem").unlink(), "No such file"),
        (
            lambda folder: (folder / "broker-key.pem").rename(folder / "api-key.pem"),
            "do not fit",
        ),
        (lambda folder: (folder / "api.pem").write_bytes(b""), "do not fit"),
    ],
)
def test_files_that_are_no_certificate_with_its_key_are_named(tmp_path, change, sentence):
    init(tmp_path)
    change(tmp_path)
    with pytest.raises(Invalid, match=sentence) as raised:
        tls.server_context(certificates.certificate_in(tmp_path, "api"))
    assert "api-key.pem" in raised.value.message
    assert "TESTBED_TLS_KEY_FILE" in raised.value.hint


def test_no_less_than_tls_1_2_is_spoken(tmp_path):
    init(tmp_path)
    server_context = tls.server_context(certificates.certificate_in(tmp_path, "api"))
    for context in (
        server_context,
        tls.client_context(tmp_path / "ca.pem"),
        tls.client_context(None),
    ):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    for context in (tls.client_context(tmp_path / "ca.pem"), tls.client_context(None)):
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, "", "rot"])
def test_a_file_without_an_authority_is_named_with_its_setting(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Invalid, match=r"TESTBED_CA: .*ca\.pem cannot be used"):
        tls.client_context(file)
