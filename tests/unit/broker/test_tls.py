"""The certificates that a client of a URL trusts."""

import ssl

import certifi
import pytest

from broker import api_client, tls


@pytest.fixture(autouse=True)
def _the_system_trusts_someone(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())


@pytest.mark.parametrize("url", ["http://127.0.0.1:8600", "HTTP://127.0.0.1:8600"])
def test_a_client_without_tls_trusts_nobody(url):
    context = tls.context_for(url)
    assert context.cert_store_stats()["x509_ca"] == 0
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("url", ["https://factory:8600", "HTTPS://factory:8600", "factory:8600"])
def test_a_client_with_tls_trusts_whom_the_system_trusts(url):
    context = tls.context_for(url)
    assert context.cert_store_stats()["x509_ca"] > 0
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(("url", "reads"), [("http://127.0.0.1:9", 0), ("https://127.0.0.1:9", 1)])
async def test_a_client_of_the_api_reads_the_systems_certificates_for_tls_alone(
    monkeypatch, url, reads
):
    read = []
    load = ssl.SSLContext.load_default_certs
    monkeypatch.setattr(
        ssl.SSLContext, "load_default_certs", lambda *all_: (read.append(all_), load(*all_))
    )
    async with api_client.connect(url, ""):
        assert len(read) == reads
