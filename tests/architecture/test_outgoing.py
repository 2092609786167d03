"""No user can send the server anywhere: what answers requests opens no connection (SSRF).

Broker, registry and store are reached by the adapters, at addresses that the operator sets.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed_api.http.app import openapi_document
from tests import sources
from tests.architecture.test_house_rules import used_names

ANSWERING = ("testbed_api/http/", "testbed_api/domain/")
LISTENING = {"testbed_api/http/listener.py", "testbed_api/http/server.py"}
WAYS_OUT = {
    *("aiohttp", "asyncua", "asyncpg", "ftplib", "http", "httpx", "nats", "paho", "requests"),
    *("smtplib", "socket", "ssl", "subprocess", "urllib", "urllib3", "websockets"),
    *("broker.api_client", "broker.backends", "broker.bus.mqtt_transport"),
    "broker.bus.mqtt_connection",
}
CALLS = re.compile(r"open_\w*connection|create_\w*connection|create_subprocess_\w+|getaddrinfo")
ANSWERS = ("Response", "Page", "List")
"""Names of models that are only ever answered."""
REFERENCE = r"#/components/schemas/(\w+)"
SOMEWHERE = re.compile(r"ur[il]|host|hostname|address|endpoint|server|broker|callback|webhook|port")

modules = [
    path
    for path in sources.modules()
    if sources.named(path).startswith(ANSWERING) and sources.named(path) not in LISTENING
]


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported, and every name out of one, with all that it lies in."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [each.name for each in names]
            case ast.ImportFrom(module=str(owner), names=names):
                modules = [f"{owner}.{each.name}" for each in names]
            case _:
                continue
        for name in modules:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@pytest.mark.parametrize("module", modules, ids=sources.named)
def test_what_answers_a_request_opens_no_connection(module: Path):
    tree = ast.parse(module.read_text())
    assert not WAYS_OUT & set(imported(tree))
    assert not [name for name in used_names(tree) if CALLS.fullmatch(name.rpartition(".")[2])]


def fields(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and schemas of all that a caller can send, however deep."""
    if isinstance(schema, list):
        for part in schema:
            yield from fields(part)
    if isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield name, part
        if "in" in schema and "name" in schema:
            yield schema["name"], schema.get("schema", {})
        for part in schema.values():
            yield from fields(part)


def test_no_field_of_a_request_says_where_to_connect():
    document = openapi_document()
    sent = {
        name: schema
        for name, schema in document["components"]["schemas"].items()
        if not name.endswith(ANSWERS)
    }
    operations = [dict(each) for methods in document["paths"].values() for each in methods.values()]
    for operation in operations:
        del operation["responses"]
    assert not [name for name in re.findall(REFERENCE, str(operations)) if name.endswith(ANSWERS)]
    request_fields = [*fields(sent), *fields(operations)]
    assert {"organisation", "purpose", "password"} <= {name for name, _ in request_fields}
    wrong = [
        name for name, each in request_fields if SOMEWHERE.fullmatch(name) or "uri" in str(each)
    ]
    assert not wrong
