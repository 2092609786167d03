"""Tries the protections of containers on every node of a swarm, by a container that looks.

An engine may drop a flag of a service without a word, so nothing is believed: a node takes no work
before its canary has come back with all protections in place.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from broker.prototypes.manifest import MIB
from testbed_runner.swarm import services
from testbed_runner.swarm.services import ROLE_LABEL, SITE_LABEL

CANARY = "canary"
WITHIN_S = 60.0
_PIDS = 16
_MEMORY_BYTES = 64 * MIB
_SCRATCH_BYTES = 1 * MIB
_PROGRAM = """
import json, os, threading

cgroup = "/sys/fs/cgroup"

def first(*paths):
    for path in paths:
        try:
            with open(path) as file:
                return file.read().strip()
        except OSError:
            pass
    return ""

def writes(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True

def threads():
    end = threading.Event()
    started = []
    try:
        for _ in range(%d):
            started.append(threading.Thread(target=end.wait))
            started[-1].start()
    except RuntimeError:
        started.pop()
    end.set()
    return len(started)

status = dict(line.split(":", 1) for line in first("/proc/self/status").splitlines() if ":" in line)
print(json.dumps({
    "no_new_privileges": status["NoNewPrivs"].strip() == "1",
    "seccomp": status["Seccomp"].strip() == "2",
    "capabilities": int(status["CapBnd"], 16) == 0,
    "user": os.getuid() == %s,
    "read_only": not writes("/canary") and writes("/tmp/canary"),
    "pids": threads() < %d,
    "memory": first(cgroup + "/memory.max", cgroup + "/memory/memory.limit_in_bytes") == "%d",
    "swap": first("/proc/swaps").count("\\n") == 0 or first(cgroup + "/memory.swap.max") == "0",
}))
""" % (2 * _PIDS, services.USER, _PIDS, _MEMORY_BYTES)  # noqa: UP031 - braces stand in the program
PROTECTIONS: Mapping[str, str] = {
    "no_new_privileges": "no-new-privileges: engines before Docker 25 take it for services from"
    ' "no-new-privileges": true in their daemon.json alone',
    "seccomp": "the seccomp profile",
    "capabilities": "dropped capabilities",
    "user": "a user that is not root",
    "read_only": "a read-only root with a place to write to",
    "pids": "a limit of processes",
    "memory": "a limit of memory",
    "swap": "memory without swap: turn swap off on this node",
}
"""What a canary reports -> what is missing where it is false."""


def service(site: str, image: str, constraints: Sequence[str]) -> dict[str, Any]:
    """The service that runs one canary on each node; image: that of relays, with Python."""
    labels = {SITE_LABEL: site, ROLE_LABEL: CANARY}
    container = services.hardened(image, labels) | {
        "Command": ["python3", "-c", _PROGRAM],
        "Mounts": [services.scratch(_SCRATCH_BYTES)],
    }
    task = {
        "ContainerSpec": container,
        "Resources": services.limits(memory_bytes=_MEMORY_BYTES, cores=0.5, pids=_PIDS),
        "RestartPolicy": {"Condition": "none"},
        "Placement": {"Constraints": list(constraints)},
        "LogDriver": services.log_driver(_SCRATCH_BYTES),
    }
    document = services.service(f"testbed-{site}-{CANARY}", labels, task)
    return document | {"Mode": {"Global": {}}}


def verdict(printed: bytes) -> str:
    """The protections that a node lacks, by the report of its canary; empty for none."""
    try:
        report = json.loads(printed)
        missing = [text for name, text in PROTECTIONS.items() if report[name] is not True]
    except (ValueError, KeyError, TypeError):
        text = printed.decode(errors="replace").strip()[-300:]
        return f"its protections could not be tried: {text or 'its canary printed nothing'}"
    return f"it lacks {'; '.join(missing)}" if missing else ""
