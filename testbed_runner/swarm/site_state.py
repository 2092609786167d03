"""Room that a swarm has for a site, and why it takes no work.  Pure.

Source: Docker Engine API 1.41, `SystemInfo` and `Node`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed_runner.port import SiteState

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONSTRAINT = re.compile(r"\s*(node\.[A-Za-z0-9_.-]+)\s*(==|!=)\s*(\S+)\s*")


def usable(
    nodes: Iterable[Mapping[str, Any]], constraints: Sequence[str]
) -> list[Mapping[str, Any]]:
    """The nodes that are there, take tasks, and are as the constraints demand."""
    return [node for node in nodes if _is_ready(node) and allows(node, constraints)]


def of(
    information: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    faults: Mapping[str, str],
) -> SiteState:
    """The state of a site.

    information: of the manager's engine.  nodes: those that are usable.  faults: id of a node ->
    what it lacks, empty if nothing.
    """
    whole = [node for node in nodes if not faults.get(node["ID"], "it was not tried")]
    resources = [node["Description"]["Resources"] for node in whole]
    machine = information.get("Architecture", "")
    reason = "" if whole else _refusal(information, nodes, faults)
    return SiteState(
        version=f"Docker {information.get('ServerVersion', '')}, nodes: {len(whole)}",
        architecture=_ARCHITECTURES.get(machine, machine),
        takes_work=not reason,
        reason=reason,
        cpu=sum(each.get("NanoCPUs", 0) for each in resources) / 1e9,
        memory_bytes=sum(each.get("MemoryBytes", 0) for each in resources),
    )


def is_manager(information: Mapping[str, Any]) -> bool:
    """Whether an engine manages a swarm."""
    return bool((information.get("Swarm") or {}).get("ControlAvailable"))


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


def _is_ready(node: Mapping[str, Any]) -> bool:
    return bool(
        node["Spec"].get("Availability") == "active" and node["Status"].get("State") == "ready"
    )


def _refusal(
    information: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], faults: Mapping[str, str]
) -> str:
    if not is_manager(information):
        return "this engine manages no swarm: `docker swarm init`, or join one as a manager"
    if not nodes:
        return "no node of the swarm is active, ready, and as the constraints of the site demand"
    node = nodes[0]
    name = node["Description"].get("Hostname", node["ID"])
    return f"node {name}: {faults.get(node['ID'], 'it was not tried')}"
