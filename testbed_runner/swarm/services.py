"""The services of a deployment on a swarm, as documents of the engine's API.  Pure.

A deployment has two: its program, and its relay, which is the only other member of its network.
They are plain documents, as the SDK's typed arguments drop protections without a word.

Source: Docker Engine API 1.41, `POST /services/create`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from broker.clock import NS_PER_S
from broker.prototypes.manifest import MIB
from broker.settings import Address
from testbed_runner.port import CREDENTIAL_FILE, SECRETS_FOLDER, SECRETS_VARIABLE, ContainerSpec
from testbed_runner.swarm import relay_program

API_PORT, BROKER_PORT = 8600, 1883
RELAY = "relay"
"""The name of the relay in its deployment's network."""
PROGRAM = "program"
SITE_LABEL, DEPLOYMENT_LABEL, ROLE_LABEL = "testbed.site", "testbed.deployment", "testbed.role"
USER = "65534"
"""Nobody, in every Linux."""
STOP_GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL of a program on another node than the runner's."""
OPEN_FILES = 1_024
_ARCHIVE, _AUTHORITY = "/relay.pyz", "/ca.pem"
_RELAY_BYTES = 64 * MIB
_RELAY_PIDS = 32
_RELAY_CORES = 0.5
_RELAY_LOG = 1 * MIB
_READABLE = 0o444
_OWNERS_ALONE = 0o400
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A config or secret that the swarm holds."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayWay:
    """A listener of the testbed as relays reach it.

    certificate: name that its certificate must bear; None without TLS.
    """

    address: Address
    certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOrder:
    """The needs of the relays of a site.

    image: with Python 3.11 or newer as `python3`.  archive: the packed program.  authority: of the
    testbed's certificates, None for those that the image trusts.
    """

    image: str
    api: RelayWay
    broker: RelayWay
    archive: StoredFile
    authority: StoredFile | None = None


def labels_of(site: str, deployment: int, role: str) -> dict[str, str]:
    """The labels by which all objects of a deployment are found again."""
    return {SITE_LABEL: site, DEPLOYMENT_LABEL: str(deployment), ROLE_LABEL: role}


def environment() -> dict[str, str]:
    """The variables that tell a program of its listeners and its secrets."""
    return {
        "TESTBED_API": f"http://{RELAY}:{API_PORT}",
        "TESTBED_BROKER": f"mqtt://{RELAY}:{BROKER_PORT}",
        "TESTBED_CREDENTIAL_FILE": f"{SECRETS_FOLDER}/{CREDENTIAL_FILE}",
        SECRETS_VARIABLE: SECRETS_FOLDER,
    }


def program(
    spec: ContainerSpec,
    image: str,
    *,
    node: str,
    network: str,
    secrets: Mapping[str, StoredFile],
) -> dict[str, Any]:
    """The service of a program.

    node: of its relay.  network: of the deployment.  secrets: file name -> where its content is.
    """
    labels = labels_of(spec.site, spec.deployment, PROGRAM)
    variables = {**spec.environment, **environment()}
    container = hardened(image, labels) | {
        "Env": [f"{name}={text}" for name, text in variables.items()],
        "Mounts": [scratch(spec.resources.disk)],
        "Secrets": [
            _delivered("Secret", f"{SECRETS_FOLDER}/{name}", stored, _OWNERS_ALONE)
            for name, stored in secrets.items()
        ],
    }
    if spec.command:
        container["Command"] = list(spec.command)
    task = {
        "ContainerSpec": container,
        "Resources": limits(
            memory_bytes=spec.resources.memory + spec.resources.disk,
            cores=spec.resources.cpu,
            pids=spec.resources.pids,
        ),
        "RestartPolicy": {"Condition": "none"},
        "Placement": {"Constraints": [f"node.id=={node}"]},
        "Networks": [{"Target": network}],
        "LogDriver": log_driver(spec.resources.log),
    }
    return service(f"testbed-{spec.site}-{spec.deployment}", labels, task)


def relay(
    spec: ContainerSpec,
    order: RelayOrder,
    *,
    subnet: IPv4Network,
    networks: tuple[str, str],
    constraints: tuple[str, ...],
) -> dict[str, Any]:
    """The service of a relay.

    subnet: of the deployment's network.  networks: that, and the one that leads to the testbed.
    constraints: on its node, which is the program's too: so it reserves what both need, and where
    the swarm finds room for it, there is room for the program.
    """
    labels = labels_of(spec.site, spec.deployment, RELAY)
    files = {_ARCHIVE: order.archive, _AUTHORITY: order.authority}
    container = hardened(order.image, labels) | {
        "Command": ["python3", _ARCHIVE],
        "Env": [f"{relay_program.ORDER}={_relay_order(order, subnet)}"],
        "Configs": [
            _delivered("Config", path, stored, _READABLE)
            for path, stored in files.items()
            if stored is not None
        ],
    }
    needs = spec.resources
    reserved = {
        "NanoCPUs": round(needs.cpu * _NANO),
        "MemoryBytes": needs.memory + needs.disk + _RELAY_BYTES,
    }
    limited = limits(memory_bytes=_RELAY_BYTES, cores=_RELAY_CORES, pids=_RELAY_PIDS)
    task = {
        "ContainerSpec": container,
        "Resources": limited | {"Reservations": reserved},
        "RestartPolicy": {"Condition": "any", "Delay": NS_PER_S},
        "Placement": {"Constraints": list(constraints)},
        "Networks": [{"Target": networks[0], "Aliases": [RELAY]}, {"Target": networks[1]}],
        "LogDriver": log_driver(_RELAY_LOG),
    }
    return service(f"testbed-{spec.site}-{spec.deployment}-{RELAY}", labels, task)


def network(site: str, deployment: int, subnet: IPv4Network, token: str) -> dict[str, Any]:
    """The network of a deployment, from which nothing leads out.

    token: another one each time, as a node may still have the former network of that name.
    """
    return {
        "Name": f"testbed-{site}-{deployment}-{token}",
        "Labels": labels_of(site, deployment, "network"),
        "Internal": True,
        **_overlay(subnet),
    }


def outer_network(site: str, subnet: IPv4Network) -> dict[str, Any]:
    """The network by which the relays of a site reach the testbed."""
    return {
        "Name": f"testbed-{site}-out",
        "Labels": {SITE_LABEL: site, ROLE_LABEL: "outer"},
        "Internal": False,
        **_overlay(subnet),
    }


def _overlay(subnet: IPv4Network) -> dict[str, Any]:
    return {
        "Driver": "overlay",
        "CheckDuplicate": True,
        "Attachable": False,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": str(subnet)}]},
    }


def service(name: str, labels: Mapping[str, str], task: Mapping[str, Any]) -> dict[str, Any]:
    """A service of one task; its name leads to its container, not to an address of IPVS."""
    return {
        "Name": name,
        "Labels": dict(labels),
        "TaskTemplate": dict(task),
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "dnsrr"},
    }


def hardened(image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The protections of every container: CIS Docker Benchmark 1.6, section 5."""
    return {
        "Image": image,
        "Labels": dict(labels),
        "User": f"{USER}:{USER}",
        "ReadOnly": True,
        "Init": True,
        "CapabilityDrop": ["ALL"],
        "Privileges": {"NoNewPrivileges": True, "Seccomp": {"Mode": "default"}},
        "Ulimits": [
            {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "StopGracePeriod": round(STOP_GRACE_S * NS_PER_S),
        # names of the network itself are answered by Docker; all others by nobody, in this network
        "DNSConfig": {"Nameservers": ["127.0.0.1"]},
    }


def limits(*, memory_bytes: int, cores: float, pids: int) -> dict[str, Any]:
    """The resources of a task, at most."""
    limits = {"NanoCPUs": round(cores * _NANO), "MemoryBytes": memory_bytes, "Pids": pids}
    return {"Limits": limits}


def scratch(size_bytes: int) -> dict[str, Any]:
    """The only place to write to; Docker adds noexec, nosuid and nodev."""
    options = {"SizeBytes": size_bytes, "Mode": 0o1777}
    return {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": options}  # noqa: S108 - in a container


def log_driver(size_bytes: int) -> dict[str, Any]:
    """Two files: one is full while the other is removed.  `local` keeps bytes as they are."""
    half = max(size_bytes // 2 // 1024, 20)
    options = {"max-size": f"{half}k", "max-file": "2", "compress": "false"}
    return {"Name": "local", "Options": options}


def _delivered(kind: str, path: str, stored: StoredFile, mode: int) -> dict[str, Any]:
    """A file of the swarm at a path of the container; kind: Config or Secret."""
    return {
        f"{kind}ID": stored.id,
        f"{kind}Name": stored.name,
        "File": {"Name": path, "UID": USER, "GID": USER, "Mode": mode},
    }


def _relay_order(order: RelayOrder, subnet: IPv4Network) -> str:
    def way(listener: RelayWay) -> dict[str, Any]:
        address = listener.address
        return {"host": address.host, "port": address.port, "name": listener.certificate}

    return json.dumps(
        {
            "listen": {"api": API_PORT, "broker": BROKER_PORT},
            "subnet": str(subnet),
            "api": way(order.api),
            "broker": way(order.broker),
            "ca": _AUTHORITY if order.authority else None,
        }
    )
