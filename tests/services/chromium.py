"""Chromium, without a window: what a page looks like once its scripts have run.

It reaches this machine alone: an address elsewhere is a name that is not found, so a page that
needs another host says so in its console.
"""

import re
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests import services

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {services.LOOPBACK}",
)
WAITS_MS = 20_000
"""How far a page's own clock runs before it is looked at; it stands still while a file loads."""
_CONSOLE = re.compile(r"^\[\S*:CONSOLE[:(]\d+\)?\] (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as its scripts left it, and what was written to the console meanwhile."""

    dom: str
    console: tuple[str, ...]


def show(url: str, folder: Path, *, trusted: Path | None = None) -> Page:
    """Open a page.

    folder: for the browser's profile.  trusted: a PEM file whose first certificate is believed.
    """
    completed = _run(url, folder, trusted, ["--dump-dom", "--enable-logging=stderr"])
    return Page(completed.stdout, tuple(_CONSOLE.findall(completed.stderr)))


def picture(
    url: str, folder: Path, *, trusted: Path | None = None, size: str = "1200,1600"
) -> Path:
    """Take a picture of a page; size: in pixels."""
    path = folder / "page.png"
    _run(url, folder, trusted, [f"--screenshot={path}", f"--window-size={size}"])
    return path


def _run(
    url: str, folder: Path, trusted: Path | None, more: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    browser = services.found("chromium", Path("/usr/bin/chromium"))
    believed = [] if trusted is None else [f"--ignore-certificate-errors-spki-list={_key(trusted)}"]
    profile, waits = f"--user-data-dir={folder}", f"--virtual-time-budget={WAITS_MS}"
    command = [browser, *QUIET, *believed, profile, waits, *more, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)


def _key(certificate: Path) -> str:
    """The hash of a certificate's public key, as the browser wants it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(sha256(spki).digest()).decode()
