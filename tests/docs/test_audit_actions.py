"""The actions of audit events: those that code writes and docs name can be actions for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from testbed_api.domain.audit import ACTIONS, OtherAction, checked_action
from testbed_api.domain.bus_refusals import BusAct

ROOT = Path(__file__).parents[2]
ENUMS = {"OtherAction": OtherAction, "BusAct": BusAct}
PLACES = {"Event": 1, "AuditContext": 0}
"""The classes of what is written, each with the place of its action."""


def test_every_action_that_code_writes_can_be_asked_for_and_is_described():
    files = [each for room in ("testbed", "testbed_api") for each in (ROOT / room).rglob("*.py")]
    written = {action for file in files for action in actions_of(ast.parse(file.read_text()))}
    assert {"clock", "notify", "restore", "audit", "connect", "disconnect"} <= written
    assert written <= set(ACTIONS)
    page = (ROOT / "docs" / "how-to" / "audit.md").read_text()
    assert {action for action in written if f"`{action}`" not in page} == set()


def actions_of(tree: ast.Module) -> Iterator[str]:
    """The actions that a module gives to new events; others pass on that of another."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        if name not in PLACES or ast.unparse(call.func).startswith("asyncio"):
            continue
        named = [each.value for each in call.keywords if each.arg == "action"]
        for value in named or call.args[PLACES[name] : PLACES[name] + 1]:
            match value:
                case ast.Constant(str(text)):
                    if text != "unreadable":  # in the place of a row that is damaged
                        yield text
                case ast.Attribute(attr=member):
                    *_, owner = ast.unparse(value.value).split(".")
                    if owner in ENUMS:
                        yield str(ENUMS[owner][member])
                case ast.Name():
                    raise AssertionError(f"{value.id}: write the action as OtherAction....")


def test_every_action_that_the_docs_ask_for_can_be_asked_for():
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    actions = {each for page in pages for each in re.findall(r"--action ([a-z.-]+)", page)}
    assert {"clock", "notify"} <= actions
    for action in actions:
        assert checked_action(action) == action
