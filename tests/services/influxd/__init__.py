"""InfluxDB 2.7's server: from PATH, or as `build` beside this file made it once."""

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from broker import tls
from broker.tls import Certificate
from tests import services
from tests.services import built_products

VERSION = "2.7.12"
ORGANISATION = "testbed"
BUCKET = "testbed"
TOKEN = "the-first-administrators-token"
GARBAGE_PERCENT = "200"
"""As in deploy/compose.yaml: a tenth less of a processor for some memory more."""


@dataclass(frozen=True)
class Influxd:
    """Where a running influxd listens, and its first administrator's token."""

    url: str
    organisation: str
    bucket: str
    token: str
    product: services.Product


@contextlib.contextmanager
def serve(
    folder: Path, *, port: int = 0, certificate: Certificate | None = None, ca: Path | None = None
) -> Iterator[Influxd]:
    """Run influxd on loopback with its data in `folder`, which a later start carries on.

    port: 0 takes a free one.  certificate, of the authority `ca`: what it shows, None for no TLS.
    A fresh folder is set up with one organisation, bucket and token.
    """
    command = services.found("influxd", built_binary())
    port = port or services.free_port()
    url = f"http{'s' if certificate else ''}://{services.LOOPBACK}:{port}"
    secured = (
        [f"--tls-cert={certificate.chain}", f"--tls-key={certificate.key}"] if certificate else []
    )
    trust = tls.client_context(ca)
    with services.running(
        [
            command,
            f"--http-bind-address={services.LOOPBACK}:{port}",
            f"--engine-path={folder / 'engine'}",
            f"--bolt-path={folder / 'influxd.bolt'}",
            f"--sqlite-path={folder / 'influxd.sqlite'}",
            "--reporting-disabled",
            "--pprof-disabled",
            "--log-level=warn",
            *secured,
        ],
        folder=folder,
        environment={"GOGC": GARBAGE_PERCENT} | os.environ,
        ready=lambda: _is_healthy(url, trust),
    ) as product:
        _set_up(url, trust)
        yield Influxd(url, ORGANISATION, BUCKET, TOKEN, product)


def built_binary() -> Path:
    """Where `build` puts the executable."""
    return built_products.cache() / f"influxd-{VERSION}" / "influxd"


def _is_healthy(url: str, trust: ssl.SSLContext) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, verify=trust).is_success
    except httpx.TransportError:
        return False


def _set_up(url: str, trust: ssl.SSLContext) -> None:
    if not httpx.get(f"{url}/api/v2/setup", verify=trust).raise_for_status().json()["allowed"]:
        return  # a restart on a folder that was set up before
    httpx.post(
        f"{url}/api/v2/setup",
        verify=trust,
        json={
            "username": "administrator",
            "password": "administrators-password",
            "org": ORGANISATION,
            "bucket": BUCKET,
            "token": TOKEN,
        },
    ).raise_for_status()
