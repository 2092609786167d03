"""The documentation page in a real browser, from a server with TLS, without another host."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from broker import tls
from broker.clock import WallClock
from testbed.server import pki
from testbed_api import service
from testbed_api.http.app import openapi_document
from testbed_api.security import certificates
from testbed_api.service import RunningServer
from testbed_api.settings import ServerSettings
from tests.services import chromium

pytestmark = pytest.mark.timeout(180)

PAGE = "/api/v1/docs"
FAILURES = ("Unable to render", "Could not render", "Failed to load", "Fetch error")


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[RunningServer]:
    """A server as `testbed up --tls` runs it."""
    folder = tmp_path / "data"
    pki.init(certificates.development_folder(folder), (), WallClock().now_ns())
    settings = ServerSettings(folder=folder, api_port=0, mqtt_port=0, tls="development")
    async with service.serve(settings, WallClock()) as running:
        yield running


async def shown(server: RunningServer, path: str, folder: Path) -> chromium.Page:
    url, trusted = f"{server.api_url}{path}", server.certificates.api.chain
    return await asyncio.to_thread(chromium.show, url, folder / "profile", trusted=trusted)


def operations() -> set[str]:
    """The ids that Swagger UI gives the document's operations."""
    return {
        f"operations-{operation['tags'][0]}-{operation['operationId']}"
        for methods in openapi_document()["paths"].values()
        for operation in methods.values()
    }


async def test_the_page_shows_every_operation_and_breaks_no_rule_of_its_own(server, tmp_path):
    page = await shown(server, PAGE, tmp_path)
    assert set(re.findall(r'id="(operations-(?!tag-)[^"]+)"', page.dom)) == operations()
    assert [text for text in FAILURES if text in page.dom] == []
    assert page.console == ()


@pytest.mark.parametrize(
    ("operation", "texts"),
    [
        ("streams/history", ("text/csv", "Thinning keeps least and greatest values")),
        ("sharing/grants", ("to find out why the pump stalls", "factory/pump-rig/rig")),
    ],
)
async def test_an_operation_opens_with_its_parameters_examples_and_answers(
    server, tmp_path, operation, texts
):
    page = await shown(server, f"{PAGE}#/{operation}", tmp_path)
    assert page.dom.count('class="opblock-body"') == 1
    for text in ("Try it out", "Authorize", "unauthenticated", *texts):
        assert text in page.dom
    assert [text for text in FAILURES if text in page.dom] == []
    assert page.console == ()


async def test_a_browser_that_asks_at_the_root_gets_there(server, tmp_path):
    for path in ("/", "/api/v1", "/api/v1/"):
        page = await shown(server, path, tmp_path)
        assert operations() <= set(re.findall(r'id="(operations-[^"]+)"', page.dom))


def test_what_is_inline_or_of_another_host_is_seen_in_the_console(tmp_path):
    """Without this the empty consoles above would prove nothing."""
    path = tmp_path / "page.html"
    path.write_text(
        """<meta http-equiv="Content-Security-Policy" content="script-src 'self'; style-src 'none'">
        <style>p { color: red }</style>
        <script>document.write("inline")</script>
        <script src="https://cdn.example/viewer.js"></script>"""
    )
    page = chromium.show(path.as_uri(), tmp_path / "profile")
    inline_style, inline_script, elsewhere = page.console
    assert "Content Security Policy" in inline_style
    assert "Content Security Policy" in inline_script
    assert "cdn.example" in elsewhere


async def test_who_asks_for_json_at_the_root_learns_where_to_read_on(server):
    headers = {"Accept": "application/json"}
    trusted = tls.client_context(server.certificates.ca)
    async with httpx.AsyncClient(base_url=server.api_url, verify=trusted) as http:
        root, api = [await http.get(path, headers=headers) for path in ("/", "/api/v1")]
        assert root.json() == api.json()
        for name in ("documentation", "openapi", "health"):
            answer = await http.get(root.json()[name])
            assert answer.status_code == 200, name
        browser = await http.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
        assert (browser.status_code, browser.headers["location"]) == (303, PAGE)
        assert {answer.headers["vary"] for answer in (root, api, browser)} == {"Accept"}
