"""Every command of `testbed`: its place in the help, its example, its options, its length."""

import ast
import importlib
import inspect
import pkgutil
import shlex
import textwrap

import pytest
import typer.main
from typer.testing import CliRunner

from testbed import cli, commands
from testbed.terminal.options import EXAMPLE

ROOT = cli.loaded_root()
PASSWORD = "correct horse battery staple\n"
MAX_LINES = 10


def tree(command, path=()):
    """Every command and group below a command, with the words that name it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from tree(child, (*path, name))


TREE = dict(tree(ROOT))


def named(path):
    return " ".join(("testbed", *path))


@pytest.mark.parametrize("path", TREE, ids=named)
def test_the_help_of_every_command_has_an_example_of_it(path):
    assert TREE[path].help
    lines = (TREE[path].epilog or "").split("\n\n")
    assert lines
    for line in lines:
        assert line.startswith(EXAMPLE)
        words = shlex.split(line.removeprefix(EXAMPLE))
        assert words[: len(path) + 1] == ["testbed", *path]
        parse(ROOT, words)


def parse(command, words, parent=None):
    """Parse a command line without running it; raises what a wrong word raises."""
    with CliRunner().isolation(input=PASSWORD * 2):
        context = command.make_context(words[0], words[1:], parent=parent)
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        assert rest[0] in command.commands, rest
        parse(command.commands[rest[0]], rest, context)


def test_an_example_with_a_wrong_word_would_be_seen():
    with pytest.raises(Exception, match="No such option"):
        parse(ROOT, ["testbed", "tap", "factory/rig/rig", "--jsn"])
    with pytest.raises(AssertionError):
        parse(ROOT, ["testbed", "gateway", "brows"])


def defined():
    """The names of the commands that the modules define, each with its module."""
    for module in pkgutil.iter_modules(commands.__path__):
        loaded = typer.Typer()
        importlib.import_module(f"{commands.__name__}.{module.name}").add_to(loaded)
        for name in typer.main.get_group(loaded).commands:
            yield name, module.name


def test_every_command_is_in_the_table_with_its_module_and_its_help():
    table = [(name, *entry) for panel in cli.PANELS.values() for name, entry in panel.items()]
    assert sorted((name, module) for name, module, _ in table) == sorted(defined())
    for name, _, help_text in table:
        assert ROOT.commands[name].help.split("\n\n")[0] == help_text


def test_a_command_is_loaded_once_it_is_invoked():
    root = typer.main.get_command(cli.app)
    context = root.context_class(root)
    assert not hasattr(root.commands["token"], "commands")
    name, token, rest = root.resolve_command(context, ["token", "list"])
    assert (name, rest) == ("token", ["list"])
    assert sorted(token.commands) == ["create", "list", "revoke"]
    assert root.resolve_command(context, ["token"]) == ("token", token, [])
    assert root.commands["token"] is token
    result = CliRunner().invoke(cli.app, ["tokne"])
    assert result.exit_code == 2
    assert "token" in result.output


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        ("status --as fay", "--as fay status"),
        ("--as fay status", "--as fay status"),
        ("grant list --as=fay --open", "--as=fay grant list --open"),
        ("status --as fay --as cora", "--as cora status"),
        ("try -- detector --as fay", "try -- detector --as fay"),
        ("status --as", "--as"),
        ("", ""),
    ],
)
def test_the_option_for_a_profile_may_stand_anywhere(words, parsed):
    assert cli.with_profile_first(words.split()) == parsed.split()


def test_every_command_is_in_a_panel_and_a_newcomers_five_come_first():
    panels = [name for names in cli.PANELS.values() for name in names]
    assert sorted(panels) == sorted(ROOT.commands)
    assert len(set(panels)) == len(panels)
    assert len(cli.PANELS["Try it"]) == 5
    output = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "100"}).output
    at = [output.index(f" {panel} ─") for panel in cli.PANELS]
    assert at == sorted(at)
    assert output.index(" demo ") < output.index(" simulate ") < at[1]
    for command in ROOT.commands.values():
        assert command.rich_help_panel in cli.PANELS
    assert max(map(len, output.splitlines())) <= 100


def test_the_list_of_commands_shows_nothing_that_an_output_cannot():
    result = CliRunner(charset="ascii").invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert "+- Try it -" in result.output


@pytest.mark.parametrize("path", TREE, ids=named)
def test_every_option_says_what_it_sets_and_its_default(path):
    for parameter in TREE[path].params:
        if parameter.name in {"help", "install_completion", "show_completion"}:
            continue
        text = parameter.help
        assert text, f"{parameter.name} says nothing"
        assert "[" not in text, f"{parameter.name}: rich takes brackets for markup"
        shows_default = bool(parameter.default) and not callable(parameter.default)
        if not (parameter.required or shows_default or is_flag(parameter) or is_zero(parameter)):
            assert "default" in text, f"{parameter.name}: {text!r} names no default"


def is_flag(parameter):
    return getattr(parameter, "is_flag", False)


def is_zero(parameter):
    return parameter.default == 0 and parameter.show_default


NOTHING_TO_SHOW = {
    "the API answers with nothing": (
        *("credential revoke", "token revoke", "member remove"),
        *("gateway lock-out", "runner lock-out", "password", "sign-out"),
    ),
    "prints nothing, until Ctrl-C": ("gateway run", "recorder", "reconcile", "runner run"),
    "prints JSON in any case": ("audit head", "openapi", "prototype schema", "scenario schema"),
    "prints or writes a unit of systemd": ("gateway install-service", "install-service"),
}
"""Commands without --json, by the reason."""


def test_every_command_that_shows_something_shows_it_as_json():
    without = {
        " ".join(path)
        for path, command in TREE.items()
        if not hasattr(command, "commands")
        and not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == {name for names in NOTHING_TO_SHOW.values() for name in names}


def functions():
    for module in pkgutil.iter_modules(commands.__path__):
        loaded = importlib.import_module(f"{commands.__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and name != "add_to":
                yield pytest.param(function, id=f"{module.name}.{name}")


@pytest.mark.parametrize("function", list(functions()))
def test_a_command_parses_calls_and_prints_in_ten_statements(function):
    source = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(source).body[0].body
    statements = [
        node
        for statement in body[1:]  # the first is the docstring
        for node in ast.walk(statement)
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert len(statements) <= MAX_LINES
