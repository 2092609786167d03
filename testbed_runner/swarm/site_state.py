"""What a swarm can give to a site, and why it takes no work.  Pure.

Source: Docker Engine API 1.41, `SystemInfo` and `Node`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed_runner.port import SiteState

OLDEST = (20, 10)
"""The first engine whose services drop capabilities and have a limit of processes."""
PRIVILEGES_SINCE = 25
"""The first engine that takes no-new-privileges from the document of a service."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONSTRAINT = re.compile(r"\s*(node\.[A-Za-z0-9_.-]+)\s*(==|!=)\s*(\S+)\s*")


def of(
    information: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]], constraints: Sequence[str]
) -> SiteState:
    """The state of a site.

    information: of the manager's engine.  nodes: of the swarm; empty unless it is a manager.
    """
    usable = [node for node in nodes if _is_usable(node) and allows(node, constraints)]
    resources = [node["Description"]["Resources"] for node in usable]
    machine = information.get("Architecture", "")
    reason = _refusal(information, usable)
    return SiteState(
        version=f"Docker {information.get('ServerVersion', '')}, {len(usable)} nodes",
        architecture=_ARCHITECTURES.get(machine, machine),
        takes_work=not reason,
        reason=reason,
        cpu=sum(each.get("NanoCPUs", 0) for each in resources) / 1e9,
        memory_bytes=sum(each.get("MemoryBytes", 0) for each in resources),
    )


def allows(node: Mapping[str, Any], constraints: Iterable[str]) -> bool:
    """Whether a node fulfils constraints on its labels, its role, its name or its id."""
    for constraint in constraints:
        match = _CONSTRAINT.fullmatch(constraint)
        if match is None:
            return False
        name, relation, value = match.groups()
        if (_value_of(node, name) == value) is not (relation == "=="):
            return False
    return True


def _value_of(node: Mapping[str, Any], name: str) -> str:
    spec = node["Spec"]
    if name.startswith("node.labels."):
        return str((spec.get("Labels") or {}).get(name.removeprefix("node.labels."), ""))
    known = {
        "node.id": node["ID"],
        "node.role": spec.get("Role", ""),
        "node.hostname": node["Description"].get("Hostname", ""),
    }
    return str(known.get(name, ""))


def _is_usable(node: Mapping[str, Any]) -> bool:
    return bool(
        node["Spec"].get("Availability") == "active" and node["Status"].get("State") == "ready"
    )


def _refusal(information: Mapping[str, Any], usable: Sequence[Mapping[str, Any]]) -> str:
    """Why the site takes no work; empty if it does."""
    if not (information.get("Swarm") or {}).get("ControlAvailable"):
        return "this engine manages no swarm: `docker swarm init`, or join one as a manager"
    versions = {node["ID"]: _version(node) for node in usable}
    if not versions:
        return "no node of the swarm is active, ready, and as the constraints of the site demand"
    if min(versions.values()) < OLDEST:
        return f"a node has an engine older than Docker {OLDEST[0]}.{OLDEST[1]}"
    own = (information.get("Swarm") or {}).get("NodeID", "")
    security = " ".join(information.get("SecurityOptions") or [])
    if versions.get(own, (PRIVILEGES_SINCE,)) < (PRIVILEGES_SINCE,) and (
        "no-new-privileges" not in security
    ):
        return (
            f"engines before Docker {PRIVILEGES_SINCE} take no-new-privileges for services from"
            ' their daemon.json alone: write "no-new-privileges": true there, on every node'
        )
    if "seccomp" not in security:
        return "this engine has no seccomp profile"
    return ""


def _version(node: Mapping[str, Any]) -> tuple[int, ...]:
    text = node["Description"]["Engine"].get("EngineVersion", "")
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2]) or (0,)
