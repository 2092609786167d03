"""An option means the same in every command that has it, and the reference says what."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from broker.clock import NS_PER_S, WallClock, ns_of
from testbed import cli

REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "commands.md"
TIMES = {"--since", "--from", "--to", "--at", "--until", "--sample-from", "--sample-to"}
DURATIONS = {
    *("--expires-in", "--keep-for", "--within", "--period", "--fault-every", "--skip"),
    "--unused-for",
}
OF_ONE_STREAM = {
    *("tap", "history", "stream gaps", "stream dead-letters", "delete", "deletions", "score"),
    "recording create",
}
OF_ALL_SPACES = {"status", "alarms", "stream list", "stream show"}


def leaves(command, path=()):
    """Every command that has no commands below it, with the words that name it."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from leaves(child, (*path, name))
    if not children:
        yield " ".join(path), command


def uses():
    """Each option by name, with the commands that have it and how they have it."""
    by_name = defaultdict(dict)
    for path, command in leaves(cli.loaded_root()):
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--") and name not in {"--help", "--version"}:
                    by_name[name][path] = parameter
    return by_name


USES = uses()
SHARED = sorted(name for name, commands in USES.items() if len(commands) > 1)


def kind(parameter):
    """What an option takes: nothing, or a value of a type."""
    if parameter.is_flag:
        return "flag"
    return parameter.type.name.removesuffix(" range")


@pytest.mark.parametrize("name", SHARED)
def test_an_option_of_several_commands_takes_the_same_in_all(name):
    kinds = {kind(parameter) for parameter in USES[name].values()}
    assert len(kinds) == 1, {path: kind(each) for path, each in USES[name].items()}


def test_the_reference_says_what_each_option_of_several_commands_means():
    text = REFERENCE.read_text().partition("## Options that several commands have")[2]
    rows = re.findall(r"^\| (`--.*?) \|", text.partition("\n## ")[0], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(--[\w-]+)", row)]
    assert sorted(listed) == SHARED


def test_every_option_that_takes_a_time_takes_every_form_of_one():
    taking = {
        name for name, commands in USES.items() for each in commands.values() if is_time(each)
    }
    assert taking == TIMES
    for name in TIMES:
        assert all(map(is_time, USES[name].values())), name


def is_time(parameter):
    return parameter.metavar == "TIME"


def test_every_option_that_takes_a_duration_takes_every_form_of_one():
    taking = {
        name
        for name, commands in USES.items()
        for each in commands.values()
        if each.metavar == "DURATION"
    }
    assert taking == DURATIONS


def test_the_space_of_one_stream_is_the_environments_and_listings_show_all():
    assert set(USES["--space"]) == OF_ONE_STREAM | OF_ALL_SPACES
    for path, parameter in USES["--space"].items():
        expected = ("live", "TESTBED_SPACE") if path in OF_ONE_STREAM else (None, None)
        assert (parameter.default, parameter.envvar) == expected, path


def test_a_time_before_now_is_no_option_although_it_begins_like_one():
    gaps = dict(leaves(cli.loaded_root()))["stream gaps"]
    now_ns = WallClock().now_ns()
    context = gaps.make_context("gaps", ["factory/rig/rig", "--from", "-10m", "--to=-5m"])
    for name, minutes in (("begin", 10), ("end", 5)):
        ago_s = (now_ns - ns_of(context.params[name])) / NS_PER_S
        assert ago_s == pytest.approx(60 * minutes, abs=5)
