"""Advice about deployments that ended, or that do not go on, in sentences.  Pure."""

from collections.abc import Callable, Mapping

from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause

Advice = Callable[[DeploymentEnd, int], tuple[str, ...]]
"""The sentences about an end of the deployment of a number."""

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a shell that cannot start a command."""
_CRASHES: Mapping[int, str] = {
    4: "its processor lacks an instruction: build the image for the site's architecture",
    6: "it aborted itself: native code of it, or its runtime, said why in the last lines",
    7: "native code of it accessed memory that it has not: look for a library built for another"
    " architecture",
    8: "native code of it divided by zero",
    11: "native code of it accessed memory that it has not: look for a library built for another"
    " architecture",
    24: "it reached the limit of processor time that it set itself",
    31: "it used a call of the system that no site allows: see docs/security.md",
}
"""What a signal that ended a program says, by its number on Linux."""
KILLED, TERMINATED = 9, 15


def of_end(end: DeploymentEnd, number: int) -> tuple[str, ...]:
    """Advice about the end of a deployment, the likeliest first; number: of the deployment."""
    return _OF_CAUSE[end.cause](end, number)


def of_state(state: DeploymentState, number: int, *, place: int | None = None) -> tuple[str, ...]:
    """Advice about a deployment that goes on; none where it does what it should.

    place: in the queue for a site, None if it waits for none.
    """
    match state:
        case DeploymentState.WAITING if place is not None:
            return (
                "wait: it starts by itself once a site has room",
                "ask for less: resources.memory, resources.cpu or labels, and deploy it again",
                "stop another one: `testbed deployments` lists them",
            )
        case DeploymentState.CONNECTING:
            return (
                "its program is to connect: testbed.connect() of the SDK, or to TESTBED_BROKER",
                f"look at what it prints: `testbed deployment logs {number} --follow`",
            )
        case DeploymentState.FROZEN:
            return ("wait until the owner resumes the grant: it goes on by itself",)
        case _:
            return ()


def _stopped(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return ("deploy it again, if it is to run: `testbed deploy`",)


def _finished(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "nothing, if its work was done",
        "a prototype of a live machine reads until it is stopped: let it read in a loop",
        "have it started again: restart: {when: always} in its manifest",
    )


def _failed(end: DeploymentEnd, number: int) -> tuple[str, ...]:
    logs = f"read what it printed: `testbed deployment logs {number}`"
    here = "run it on your computer: `testbed prototype test`"
    if end.signal is not None and end.signal in _CRASHES:
        return (_CRASHES[end.signal], logs)
    if end.signal in {KILLED, TERMINATED}:
        return (
            "it, or a process of it, ended it by a signal: look for kill and time-outs in it",
            logs,
        )
    if end.exit_code == NOT_FOUND:
        return ("a program that it calls is not in its image: install it there", logs)
    if end.exit_code == NOT_EXECUTABLE:
        return ("a file that it calls cannot be executed: chmod +x it in the image", logs)
    if end.phase is not DeploymentState.RUNNING:
        return (
            logs,
            "it ended before it was let in: look at its first lines, a missing module or file",
            here,
        )
    return (logs, here)


def _memory(_end: DeploymentEnd, number: int) -> tuple[str, ...]:
    return (
        "give it more: resources.memory in its manifest, and deploy it again",
        "let it keep less: a window of samples instead of all of them",
        f"see how much it takes: `testbed deployment metrics {number}`",
    )


def _pids(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "let it start fewer processes and threads, such as OMP_NUM_THREADS=1 in `environment`",
        "give it more: resources.pids in its manifest, and deploy it again",
    )


def _disk(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "let it remove files that it needs no more: /tmp is all that it can write",
        "give it more: resources.disk in its manifest, and deploy it again",
    )


def _time(end: DeploymentEnd, number: int) -> tuple[str, ...]:
    if end.phase is DeploymentState.RUNNING:
        return (
            "see whether its inputs came: `testbed status`",
            "allow longer silence: health.silent_for in its manifest, or leave it out",
            f"look where it hangs: `testbed deployment logs {number}`",
        )
    return (
        f"look at what it did meanwhile: `testbed deployment logs {number}`",
        "let it connect first and load afterwards",
        "allow it longer: health.starts_within in its manifest",
    )


def _image(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "see whether the testbed has it: `testbed image list`; if not, `testbed prototype push`",
        "build it for the architecture of the site, which the reason names",
        "choose another site: `testbed deploy --label`",
    )


def _start(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "see that the first word of `command` in its manifest is a program in the image",
        "see that it runs as another user than root, and writes to /tmp alone",
    )


def _grant(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "ask its owner again: `testbed prototype request`",
        "deploy it once it is granted: a deployment that ended does not come back by itself",
    )


def _replaced(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "nothing: `testbed deployments` shows the one that runs in its place",
        "go back to it: `testbed deployment rollback` of the one in its place",
    )


def _site(_end: DeploymentEnd, _number: int) -> tuple[str, ...]:
    return (
        "ask who runs the site",
        "deploy it again: it goes to another site that suits",
    )


_OF_CAUSE: Mapping[EndCause, Advice] = {
    EndCause.STOPPED: _stopped,
    EndCause.FINISHED: _finished,
    EndCause.FAILED: _failed,
    EndCause.MEMORY: _memory,
    EndCause.PIDS: _pids,
    EndCause.DISK: _disk,
    EndCause.TIME: _time,
    EndCause.IMAGE: _image,
    EndCause.START: _start,
    EndCause.GRANT: _grant,
    EndCause.REPLACED: _replaced,
    EndCause.SITE: _site,
}
