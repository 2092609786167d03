"""Clients in two languages, generated from the API's own document, compile strictly.

No answer is untyped where a noun stands: each is a model of `broker.responses`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testbed_api.http.app import openapi_document
from tests.services import openapi_typescript

pytestmark = pytest.mark.timeout(300)

TYPESCRIPT = """
import type { components, paths } from "./api";

type Grants = paths["/api/v1/grants"]["get"]["responses"][200]["content"]["application/json"];
type Problem = components["schemas"]["ProblemResponse"];

export function openRequests(page: Grants): string[] {
  return page.items.filter((grant) => grant.state === "asked").map((grant) => grant.sentence);
}

export function explain(problem: Problem): string {
  return problem.hint ? `${problem.detail}: ${problem.hint}` : problem.detail;
}

// @ts-expect-error a grant has no such field
export const wrong = (page: Grants): unknown => page.items[0]?.colour;
"""
PYTHON = """
from connected_testbed_client import AuthenticatedClient
from connected_testbed_client.api.sharing import grants
from connected_testbed_client.models import GrantPage, GrantState


def open_requests(client: AuthenticatedClient) -> list[str]:
    page = grants.sync(client=client)
    assert isinstance(page, GrantPage)
    return [grant.sentence for grant in page.items if grant.state is GrantState.ASKED]
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> Path:
    """The OpenAPI document as a file."""
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_text(json.dumps(openapi_document()))
    return path


def test_every_answer_is_a_model():
    untyped = {
        f"{method.upper()} {path}"
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        for media_type, content in answer.get("content", {}).items()
        if media_type.endswith("json")
        and "ndjson" not in media_type
        and not content.get("schema", {}).get("$ref", "").endswith(("Response", "Page", "List"))
    }
    assert untyped == set()


def test_every_operation_has_a_short_id_of_its_own():
    operations = [
        operation["operationId"]
        for methods in openapi_document()["paths"].values()
        for operation in methods.values()
    ]
    assert len(operations) == len(set(operations))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){0,4}", name) for name in operations), operations


def test_a_typescript_client_compiles_strictly(document, tmp_path):
    types = tmp_path / "api.d.ts"
    openapi_typescript.generate(document, types)
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", types.read_text(), flags=re.DOTALL)
    assert not re.search(r":\s*(any|unknown)\b|<string, (any|unknown)>", without_headers(code))
    program = tmp_path / "program.ts"
    program.write_text(TYPESCRIPT)
    openapi_typescript.compile_strictly(program)


def without_headers(code: str) -> str:
    """TypeScript without the headers of answers, which may be any, and without manifests and
    sources, whose forms have schemas of their own.
    """
    return code.replace("[name: string]: unknown;", "").replace("[key: string]: unknown;", "")


def test_a_python_client_compiles_strictly(document, tmp_path):
    client = tmp_path / "client"
    tools = Path(sys.executable).parent
    generated = subprocess.run(  # noqa: S603 - a fixed command on a file of ours
        [
            *(tools / "openapi-python-client", "generate", "--path", document),
            *("--output-path", client, "--meta", "setup"),
        ],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},  # it formats with our ruff
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    left_out = set(re.findall(r"Unsupported content_type (\S+?)\)", generated.stderr))
    streams = {"application/x-ndjson", "text/csv", "text/event-stream", "application/x-tar"}
    assert left_out <= streams
    (client / "program.py").write_text(PYTHON)
    checked = subprocess.run(  # noqa: S603 - likewise
        [
            *(tools / "mypy", "--strict", "--no-incremental", "--config-file="),
            *("connected_testbed_client", "program.py"),
        ],
        cwd=client,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    models = client / "connected_testbed_client" / "models"
    untyped = {
        path.name
        for path in models.glob("*_response.py")
        if re.search(r"^    (?!additional_)\w+: .*\bAny\b", path.read_text(), flags=re.MULTILINE)
    }
    assert untyped == set()
