"""The digest of a tag, from a real registry; and what a hostile or locked one may not do."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from broker.errors import Invalid, Unavailable, Unknown
from testbed_api.images import registry_client
from testbed_api.images.registry_client import RegistryReference
from tests import services
from tests.services import docker_registry
from tests.services import image_archives as archives
from tests.services.image_archives import BLOBS, OCI_INDEX, OCI_MANIFEST, digest, manifest

CONFIG = archives.config()


def index(*architectures: str) -> bytes:
    listed = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": digest(manifest()),
            "size": len(manifest()),
            "platform": {"os": "linux", "architecture": each},
        }
        for each in architectures
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


async def test_a_real_registry_says_what_a_tag_stands_for(tmp_path):
    with docker_registry.serve(tmp_path) as host:
        pinned = await asyncio.to_thread(
            docker_registry.put, host, "acme/watch", "1.2", BLOBS, manifest()
        )
        await asyncio.to_thread(docker_registry.put, host, "acme/watch", "2", {}, index("arm64"))
        await asyncio.to_thread(
            docker_registry.put, host, "acme/watch", "3", {}, index("arm64", "amd64")
        )
        image = await registry_client.resolve(f"{host}/acme/watch:1.2", {host})
        assert image.digest == pinned
        assert image.reference == f"{host}/acme/watch@{pinned}"
        assert image.architecture == "amd64"
        assert image.size_bytes == sum(len(each) for each in BLOBS.values()) - len(CONFIG)
        both = await registry_client.resolve(f"{host}/acme/watch:1.2@{pinned}", {host})
        assert both == image == await registry_client.resolve(image.reference, {host})
        for tag, architecture in (("2", "arm64"), ("3", "")):
            listed = await registry_client.resolve(f"{host}/acme/watch:{tag}", {host})
            assert listed.architecture == architecture
        moved = f"{host}/acme/watch:2@{pinned}"
        with pytest.raises(Invalid, match=r"the tag '2' stands for sha256:.* now"):
            await registry_client.resolve(moved, {host})
        for name in (f"{host}/acme/watch:9", f"{host}/acme/other:1"):
            with pytest.raises(Unknown, match="there is no image"):
                await registry_client.resolve(name, {host})
    with pytest.raises(Unavailable, match="does not answer"):
        await registry_client.resolve(f"{host}/acme/watch:1.2", {host})


async def test_only_hosts_of_the_settings_are_asked():
    for text in ("127.0.0.1:9/acme/watch:1", "watch:1", "registry.example/acme/watch:1"):
        with pytest.raises(Invalid, match="images are not taken from"):
            await registry_client.resolve(text, {"ghcr.io"})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("python:3.12", "https://registry-1.docker.io/v2/library/python"),
        ("acme/watch:1", "https://registry-1.docker.io/v2/acme/watch"),
        ("ghcr.io/acme/watch:1", "https://ghcr.io/v2/acme/watch"),
        ("localhost/acme/watch:1", "http://localhost/v2/acme/watch"),
        ("127.0.0.1:5000/watch:1", "http://127.0.0.1:5000/v2/watch"),
        ("10.0.0.1:5000/watch:1", "https://10.0.0.1:5000/v2/watch"),
    ],
)
def test_a_registry_is_asked_with_tls_unless_it_is_this_machine(text, url):
    assert RegistryReference.parse(text).api == url


Answers = Mapping[str, tuple[int, Mapping[str, str], bytes]]


@asynccontextmanager
async def answering(answers: Answers, requests: list[str]):
    """An HTTP server that speaks a registry's answers; `HOST` in a header stands for its own."""
    port = services.free_port()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            has_token = "authorization: bearer secret-token" in head.lower()
            requests.append(path)
            wanted = urlsplit(path).path + (" with token" if has_token else "")
            status, headers, body = answers.get(wanted, (404, {}, b""))
            lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close"]
            lines += [
                f"{name}: {value.replace('HOST', f'{services.LOOPBACK}:{port}')}"
                for name, value in headers.items()
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, services.LOOPBACK, port):
        yield f"{services.LOOPBACK}:{port}"


MANIFEST_TYPE = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
ROOT = "/v2/acme/watch"
BLOB = f"{ROOT}/blobs/{digest(CONFIG)}"


def challenge(realm: str) -> tuple[int, Mapping[str, str], bytes]:
    text = f'Bearer realm="{realm}",service="registry",scope="repository:acme/watch:pull"'
    return (401, {"WWW-Authenticate": text}, b"")


async def resolved(answers: Answers, *more: str):
    requests: list[str] = []
    async with answering(answers, requests) as host:
        image = await registry_client.resolve(f"{host}/acme/watch:1", {host, *more})
    return image, requests


async def test_a_registry_that_wants_a_token_gets_one_without_a_password():
    image, requests = await resolved(
        {
            f"{ROOT}/manifests/1": challenge("http://HOST/token"),
            "/token": (200, {}, b'{"token": "secret-token"}'),
            f"{ROOT}/manifests/1 with token": (200, MANIFEST_TYPE, manifest()),
            f"{BLOB} with token": (200, {}, CONFIG),
        }
    )
    assert (image.digest, image.architecture) == (digest(manifest()), "amd64")
    assert requests[1] == "/token?scope=repository%3Aacme%2Fwatch%3Apull&service=registry"


FOUND = {f"{ROOT}/manifests/1": (200, MANIFEST_TYPE, manifest())}


async def test_a_configuration_that_lies_elsewhere_leaves_the_architecture_open():
    image, requests = await resolved(
        {**FOUND, BLOB: (307, {"Location": "http://169.254.169.254/latest"}, b"")}
    )
    assert image.architecture == ""
    assert requests == [f"{ROOT}/manifests/1", BLOB]
    image, _ = await resolved(
        {**FOUND, BLOB: (307, {"Location": "/there"}, b""), "/there": (200, {}, CONFIG)}
    )
    assert image.architecture == "amd64"


@pytest.mark.parametrize(
    ("answers", "error", "sentence"),
    [
        ({f"{ROOT}/manifests/1": challenge("http://169.254.169.254/x")}, Invalid, "no registry of"),
        ({f"{ROOT}/manifests/1": challenge("http://127.0.0.1:9/x")}, Invalid, "no registry of"),
        ({f"{ROOT}/manifests/1": challenge("file:///etc/passwd")}, Invalid, "no registry of"),
        ({f"{ROOT}/manifests/1": (401, {}, b"")}, Invalid, "without a password"),
        (
            {f"{ROOT}/manifests/1": challenge("http://HOST/token"), "/token": (401, {}, b"")},
            Invalid,
            "without a password",
        ),
        (
            {
                f"{ROOT}/manifests/1": challenge("http://HOST/token"),
                "/token": (200, {}, b'{"token": "a\\r\\nb"}'),
            },
            Unavailable,
            "its token is none",
        ),
        (
            {f"{ROOT}/manifests/1": (302, {"Location": "http://127.0.0.1:9/"}, b"")},
            Unavailable,
            "sends elsewhere",
        ),
        (
            {f"{ROOT}/manifests/1": (302, {"Location": f"{ROOT}/manifests/1"}, b"")},
            Unavailable,
            "without end",
        ),
        ({f"{ROOT}/manifests/1": (500, {}, b"")}, Unavailable, "status 500"),
        ({f"{ROOT}/manifests/1": (200, {}, b"<html>")}, Unavailable, "which is none"),
        ({f"{ROOT}/manifests/1": (200, MANIFEST_TYPE, b"{")}, Unavailable, "no JSON"),
        ({f"{ROOT}/manifests/1": (200, MANIFEST_TYPE, b"{}")}, Unavailable, "no configuration"),
        (
            {f"{ROOT}/manifests/1": (200, MANIFEST_TYPE, bytes(5 * 1024**2))},
            Unavailable,
            "more than 4,194,304 bytes",
        ),
        ({**FOUND, BLOB: (200, {}, b"{}")}, Unavailable, "differs from its digest"),
    ],
)
async def test_a_registry_leads_nowhere_else_and_cannot_fill_the_memory(answers, error, sentence):
    with pytest.raises(error, match=sentence):
        await resolved(answers)
