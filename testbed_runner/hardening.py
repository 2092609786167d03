"""The protections of a running container, and how each is seen: what was asked for proves nothing.

Pure.  The numbers are those of the CIS Docker Benchmark 1.6, section 5, container runtime.
docs/security.md has the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed_runner.port import ProductName

EVERY_PRODUCT = frozenset({ProductName.DOCKER, ProductName.SWARM})
DOCKER = frozenset({ProductName.DOCKER})
HOST = "host"
NO_CAPABILITY = 0
FILTERED = "2"
"""What the kernel says of a process whose calls are filtered by seccomp."""
SEPARATE = frozenset({"ipc", "mnt", "net", "pid", "uts", "cgroup"})
MOST_OPEN_FILES = 1_024
SAFE_SOURCES = ("/dev/shm/", "/run/", "/var/lib/docker/")  # noqa: S108 - of mounts
OF_THE_KERNEL = frozenset({"proc", "devpts", "mqueue", "devtmpfs"})
"""Kinds of mounts that hold no files; what is mounted below /proc are masks."""
ROOT_ALONE = "mode=755"
"""The option of a mount in which root alone may write, such as /dev."""
INERT = frozenset({"noexec", "nosuid", "nodev"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvidence:
    """Facts about a running container.

    inspected: what the engine says of it, as `docker inspect` shows it.  status: /proc/PID/status
    of its program, key -> text.  shared: the kinds of namespaces that it shares with the runner.
    mounts: lines of its /proc/PID/mountinfo.  limits: /proc/PID/limits, name -> hard limit.
    """

    inspected: Mapping[str, Any]
    status: Mapping[str, str]
    shared: frozenset[str]
    mounts: Sequence[str]
    limits: Mapping[str, str]

    @property
    def host_config(self) -> Mapping[str, Any]:
        """Its ties to the host, as the engine describes them."""
        config: Mapping[str, Any] = self.inspected["HostConfig"]
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """A protection: its name, its number at CIS if it has one, and what must be so.

    sentence: what it is for.  seen: how it is read.  products: on which it can be had.
    """

    name: str
    cis: str
    sentence: str
    seen: str
    holds: Callable[[ContainerEvidence], bool]
    products: frozenset[ProductName] = EVERY_PRODUCT


def missing(evidence: ContainerEvidence, product: ProductName) -> list[Protection]:
    """The protections that a running container lacks."""
    return [
        protection
        for protection in PROTECTIONS
        if product in protection.products and not protection.holds(evidence)
    ]


def _capabilities(evidence: ContainerEvidence) -> bool:
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    return all(int(evidence.status[name], 16) == NO_CAPABILITY for name in sets)


def _is_no_root(evidence: ContainerEvidence) -> bool:
    ids = evidence.status["Uid"].split() + evidence.status["Gid"].split()
    return "0" not in ids + evidence.status.get("Groups", "").split()


def _root_is_read_only(evidence: ContainerEvidence) -> bool:
    root = next(line.split() for line in evidence.mounts if line.split()[4] == "/")
    return "ro" in root[5].split(",")


def _mounts_are_ours(evidence: ContainerEvidence) -> bool:
    """All mounts that the engine lists are in memory, read-only or both."""
    return all(
        mount["Type"] == "tmpfs"
        or (not mount["RW"] and str(mount["Source"]).startswith(SAFE_SOURCES))
        for mount in evidence.inspected["Mounts"]
    )


def _no_socket(evidence: ContainerEvidence) -> bool:
    sources = [str(mount.get("Source", "")) for mount in evidence.inspected["Mounts"]]
    return not any(source.endswith(".sock") or source in {"/run", "/"} for source in sources)


def _propagation(evidence: ContainerEvidence) -> bool:
    """Nothing that is mounted in it is mounted on the host too."""
    return not any(
        field.startswith("shared:")
        for line in evidence.mounts
        for field in line.partition(" - ")[0].split()[6:]
    )


def _writable_mounts_are_bounded(evidence: ContainerEvidence) -> bool:
    """Each mount that can be written to is in memory, with a size, and executes nothing."""
    for line in evidence.mounts:
        left, _, right = line.partition(" - ")
        point, flags = left.split()[4], frozenset(left.split()[5].split(","))
        kind, _, options = right.split(" ", 2)
        if "ro" in flags or kind in OF_THE_KERNEL or point.startswith("/proc/"):
            continue
        if ROOT_ALONE in options.split(","):
            continue
        if kind != "tmpfs" or "size=" not in options or not flags >= INERT:
            return False
    return True


def _open_files(evidence: ContainerEvidence) -> bool:
    limit = evidence.limits["Max open files"]
    return limit.isdecimal() and int(limit) <= MOST_OPEN_FILES


def _host(key: str, *allowed: Any) -> Callable[[ContainerEvidence], bool]:
    """Make a look at one field of what the engine says of ties to the host."""
    return lambda evidence: evidence.host_config.get(key) in allowed


def _above_zero(key: str) -> Callable[[ContainerEvidence], bool]:
    return lambda evidence: (evidence.host_config.get(key) or 0) > 0


def _separate(kind: str, key: str) -> Callable[[ContainerEvidence], bool]:
    """Make a look at a namespace: the engine does not say `host`, and the kernel shows another."""
    return lambda evidence: evidence.host_config.get(key) != HOST and kind not in evidence.shared


_INSPECT, _KERNEL, _BOTH = "engine", "kernel", "engine and kernel"
PROTECTIONS: Sequence[Protection] = (
    Protection(
        name="no capabilities",
        cis="5.4",
        sentence="It can use none of root's powers, whoever it becomes.",
        seen=_KERNEL,
        holds=_capabilities,
    ),
    Protection(
        name="not privileged",
        cis="5.5",
        sentence="It is held as containers are.",
        seen=_INSPECT,
        holds=lambda evidence: not evidence.host_config.get("Privileged"),
    ),
    Protection(
        name="no folder of the host",
        cis="5.6",
        sentence="It sees no folder of the machine but its own secrets, read-only and in memory.",
        seen=_INSPECT,
        holds=_mounts_are_ours,
    ),
    Protection(
        name="no published port",
        cis="5.8, 5.9, 5.14",
        sentence="Nobody reaches it from outside.",
        seen=_INSPECT,
        holds=lambda evidence: (
            not evidence.host_config.get("PortBindings")
            and not evidence.host_config.get("PublishAllPorts")
        ),
    ),
    Protection(
        name="own network",
        cis="5.10",
        sentence="It has none of the machine's networks.",
        seen=_BOTH,
        holds=_separate("net", "NetworkMode"),
    ),
    Protection(
        name="no network but its two listeners",
        cis="5.30",
        sentence="It has no interface but a loopback of its own.",
        seen=_INSPECT,
        holds=_host("NetworkMode", "none"),
        products=DOCKER,
    ),
    Protection(
        name="memory limit",
        cis="5.11",
        sentence="It is killed before it takes memory from others.",
        seen=_INSPECT,
        holds=_above_zero("Memory"),
    ),
    Protection(
        name="no swap",
        cis="",
        sentence="It cannot fill the machine's swap.",
        seen=_INSPECT,
        holds=lambda evidence: (
            evidence.host_config.get("MemorySwap") == evidence.host_config.get("Memory")
        ),
        products=DOCKER,
    ),
    Protection(
        name="processor limit",
        cis="5.12",
        sentence="It gets the cores that it asked for, and no more.",
        seen=_INSPECT,
        holds=_above_zero("NanoCpus"),
    ),
    Protection(
        name="read-only root",
        cis="5.13",
        sentence="It changes nothing of its image, and fills no disk of the machine.",
        seen=_KERNEL,
        holds=_root_is_read_only,
    ),
    Protection(
        name="sized disks in memory",
        cis="",
        sentence="What it writes has a limit, and cannot be executed.",
        seen=_KERNEL,
        holds=_writable_mounts_are_bounded,
        products=DOCKER,
    ),
    Protection(
        name="no restart by the engine",
        cis="5.15",
        sentence="The runner decides on restarts, with a limit and growing pauses.",
        seen=_INSPECT,
        holds=lambda evidence: (
            (evidence.host_config.get("RestartPolicy") or {}).get("Name") in {"", "no", None}
        ),
    ),
    Protection(
        name="own processes",
        cis="5.16",
        sentence="It sees and signals none of the machine's processes.",
        seen=_BOTH,
        holds=_separate("pid", "PidMode"),
    ),
    Protection(
        name="own shared memory",
        cis="5.17",
        sentence="It shares no memory and no queue with others.",
        seen=_BOTH,
        holds=_separate("ipc", "IpcMode"),
    ),
    Protection(
        name="no devices",
        cis="5.18",
        sentence="It opens no device of the machine.",
        seen=_INSPECT,
        holds=lambda evidence: (
            not evidence.host_config.get("Devices")
            and not evidence.host_config.get("DeviceCgroupRules")
            and not evidence.host_config.get("DeviceRequests")
        ),
    ),
    Protection(
        name="open files limit",
        cis="5.19",
        sentence="It cannot use up the machine's table of open files.",
        seen=_KERNEL,
        holds=_open_files,
    ),
    Protection(
        name="no dump of memory",
        cis="",
        sentence="A crash writes nothing to the machine.",
        seen=_KERNEL,
        holds=lambda evidence: evidence.limits["Max core file size"] == "0",
    ),
    Protection(
        name="mounts of its own",
        cis="5.20",
        sentence="What it mounts does not reach the machine.",
        seen=_KERNEL,
        holds=_propagation,
    ),
    Protection(
        name="own host name",
        cis="5.21",
        sentence="It cannot rename the machine.",
        seen=_BOTH,
        holds=_separate("uts", "UTSMode"),
    ),
    Protection(
        name="filtered system calls",
        cis="5.22",
        sentence="Calls that containers do not need, such as mount, bpf and kexec, are refused.",
        seen=_KERNEL,
        holds=lambda evidence: evidence.status.get("Seccomp") == FILTERED,
    ),
    Protection(
        name="usual control group",
        cis="5.25",
        sentence="It is held where the engine holds all containers.",
        seen=_INSPECT,
        holds=_host("CgroupParent", "", None),
    ),
    Protection(
        name="no new privileges",
        cis="5.26",
        sentence="No file of its image makes it root.",
        seen=_KERNEL,
        holds=lambda evidence: evidence.status.get("NoNewPrivs") == "1",
    ),
    Protection(
        name="process limit",
        cis="5.29",
        sentence="A program that starts others without end fills only its own table.",
        seen=_INSPECT,
        holds=_above_zero("PidsLimit"),
    ),
    Protection(
        name="users of the engine",
        cis="5.31",
        sentence="It is not exempt from a mapping of users that the engine has.",
        seen=_INSPECT,
        holds=_host("UsernsMode", "", None),
    ),
    Protection(
        name="no engine socket",
        cis="5.32",
        sentence="It gives the container engine no orders.",
        seen=_INSPECT,
        holds=_no_socket,
    ),
    Protection(
        name="not root",
        cis="4.1",
        sentence="It runs as a user that owns nothing on the machine.",
        seen=_KERNEL,
        holds=_is_no_root,
    ),
    Protection(
        name="log limit",
        cis="",
        sentence="What it prints fills no disk.",
        seen=_INSPECT,
        holds=lambda evidence: "max-size" in evidence.host_config["LogConfig"]["Config"],
    ),
)
