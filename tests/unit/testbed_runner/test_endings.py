"""The end of a program in words that its developer understands."""

import pytest

from broker.deployments.life import DeploymentState, EndCause
from broker.prototypes.manifest import PrototypeResources
from testbed_runner import endings
from testbed_runner.port import CannotStart, Container, ContainerState


@pytest.mark.parametrize(
    ("facts", "cause", "limit", "reason"),
    [
        ({"exit_code": 0}, EndCause.FINISHED, "", "its program ended with exit code 0"),
        ({"exit_code": 3}, EndCause.FAILED, "", "its program ended with exit code 3"),
        (
            {"exit_code": 139},
            EndCause.FAILED,
            "",
            "its program was ended by SIGSEGV (exit code 139)",
        ),
        (
            {"exit_code": 168},
            EndCause.FAILED,
            "",
            "its program was ended by signal 40 (exit code 168)",
        ),
        (
            {"exit_code": 127},
            EndCause.FAILED,
            "",
            "its program ended with exit code 127: a command that it called does not exist",
        ),
        (
            {"exit_code": 137, "killed_by_memory": True},
            EndCause.MEMORY,
            "memory 256 MiB",
            "it was killed as it used more than 256 MiB",
        ),
        (
            {"exit_code": 1, "hit_pids": True},
            EndCause.PIDS,
            "pids 64",
            "it failed after it was refused more than 64 processes",
        ),
        (
            {"exit_code": 1, "hit_disk": True},
            EndCause.DISK,
            "disk 64 MiB",
            "it failed after its files had filled 64 MiB",
        ),
        (
            {"exit_code": 0, "killed_by_memory": True, "hit_pids": True},
            EndCause.FINISHED,
            "",
            "its program ended with exit code 0",
        ),
        (
            {},
            EndCause.SITE,
            "",
            "its program is gone from the site: somebody else ended it, or the machine restarted",
        ),
        (
            {"failure": CannotStart("no such image", cause=EndCause.IMAGE, hint="push it")},
            EndCause.IMAGE,
            "",
            "no such image (push it)",
        ),
    ],
)
def test_each_end_has_its_cause_and_a_sentence(facts, cause, limit, reason):
    container = Container(deployment=12, state=ContainerState.ENDED, **facts)
    end = endings.of_container(container, PrototypeResources(), DeploymentState.RUNNING)
    assert [end.cause, end.limit, end.reason] == [cause, limit, reason]
    assert end.phase is DeploymentState.RUNNING


def test_an_end_before_the_program_was_let_in_says_so():
    container = Container(deployment=12, state=ContainerState.ENDED, exit_code=1)
    end = endings.of_container(container, PrototypeResources(), DeploymentState.CONNECTING)
    assert end.reason == "its program ended with exit code 1, before broker or API had let it in"
