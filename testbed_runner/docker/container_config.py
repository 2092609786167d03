"""The configuration with which every container is made: its limits, and nothing that it may reach.

Pure.  `testbed_runner.hardening` lists what must be seen of a running container.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.deployments.life import EndCause
from broker.prototypes.manifest import PrototypeResources
from testbed_runner.docker import seccomp
from testbed_runner.port import SECRETS_FOLDER, CannotStart

SITE_LABEL = "testbed.site"
DEPLOYMENT_LABEL = "testbed.deployment"
FIRST_USER = 700_000_000
"""The user of a deployment is this and its number, so that no two share what the kernel counts by
user, and no file of the host is theirs."""
NO_GROUP = 65_534
OPEN_FILES = 1_024
OUT_OF_MEMORY_SCORE = 500
"""If the whole machine lacks memory, the kernel ends prototypes before anything of the host."""
BYTES_PER_FILE = 4_096
"""Bytes of a disk for each file that may be on it: the smallest that a file takes there."""
NS_PER_CORE = 1_000_000_000
MOST_VOLUMES = 10
MOUNT = "rw,noexec,nosuid,nodev"
TMP = "/tmp"  # noqa: S108 - in the container
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - in the container
HOME = {"HOME": TMP}
"""The only folder that a program may write to; libraries look for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramUser:
    """The user and the group that a program runs as."""

    uid: int
    gid: int

    def __str__(self) -> str:
        """As Docker takes it; with a group, so that none of the image's groups is added."""
        return f"{self.uid}:{self.gid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOrder:
    """A container to be made.

    image: its id at the engine.  image_config: the part `Config` of that.  secrets: the folder on
    this machine that it finds at SECRETS_FOLDER.
    """

    site: str
    deployment: int
    image: str
    image_config: Mapping[str, Any]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    resources: PrototypeResources
    secrets: Path

    @property
    def user(self) -> ProgramUser:
        """The user it runs as."""
        return program_user(self.image_config.get("User") or "", self.deployment)


def program_user(wanted: str, deployment: int) -> ProgramUser:
    """The user of a deployment: its image's own, if that is a number and not root.

    wanted: user of the image, such as `1000:1000` or `node`; names are looked up nowhere.
    """
    user, _, group = wanted.partition(":")
    if not (user.isascii() and user.isdecimal() and 0 < int(user) < FIRST_USER):
        return ProgramUser(uid=FIRST_USER + deployment, gid=FIRST_USER + deployment)
    has_group = group.isascii() and group.isdecimal() and 0 < int(group) < FIRST_USER
    return ProgramUser(uid=int(user), gid=int(group) if has_group else NO_GROUP)


def container_config(order: ContainerOrder) -> dict[str, Any]:
    """The body of the engine's request that makes a container.

    Raises CannotStart for an image that wants more folders of its own than it may have.
    """
    first, *more = order.command
    return {
        "Image": order.image,
        "Entrypoint": [first],
        "Cmd": more,
        "User": str(order.user),
        "Env": [f"{name}={value}" for name, value in {**HOME, **order.environment}.items()],
        "Labels": {SITE_LABEL: order.site, DEPLOYMENT_LABEL: str(order.deployment)},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": _host_config(order),
    }


def _host_config(order: ContainerOrder) -> dict[str, Any]:
    """The part of the configuration that holds a container to its limits."""
    resources = order.resources
    memory = resources.memory + resources.disk  # what lies on its disk is memory
    return {
        "NetworkMode": "none",
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp.profile()}"],
        "Privileged": False,
        "PidsLimit": resources.pids + INIT_PIDS,
        "Memory": memory,
        "MemorySwap": memory,
        "OomKillDisable": False,
        "OomScoreAdj": OUT_OF_MEMORY_SCORE,
        "NanoCpus": round(resources.cpu * NS_PER_CORE),
        "Ulimits": [
            {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "Tmpfs": _disks(order),
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(order.secrets),
                "Target": SECRETS_FOLDER,
                "ReadOnly": True,
                "BindOptions": {"Propagation": "private"},
            }
        ],
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": LOG_DRIVER,
            "Config": {"max-size": str(resources.log // 2), "max-file": "2", "compress": "false"},
        },
    }


INIT_PIDS = 1
"""The process of Docker's own that passes signals on and waits for orphans."""
LOG_DRIVER = "local"
"""Keeps bytes as they are; that with JSON replaces those that are no UTF-8."""


def _disks(order: ContainerOrder) -> dict[str, str]:
    """The folders that a program may write to, in memory: /tmp, and those that its image names.

    Docker would give the latter places on the host's disk, without any limit.
    """
    size = order.resources.disk
    volumes = {posixpath.normpath(path) for path in order.image_config.get("Volumes") or ()}
    if len(volumes) > MOST_VOLUMES:
        raise CannotStart(
            f"its image names {len(volumes)} volumes, and it may have {MOST_VOLUMES}",
            cause=EndCause.IMAGE,
            hint="remove VOLUME from its Containerfile",
        )
    own = {path for path in volumes if not _is_ours(path)}
    options = f"{MOUNT},mode=1777,size={size},nr_inodes={max(64, size // BYTES_PER_FILE)}"
    return dict.fromkeys((TMP, SHARED_MEMORY, *sorted(own)), options)


def _is_ours(path: str) -> bool:
    """Whether something of the testbed's stands at this path, or below which it stands."""
    return (
        path == "/" or f"{SECRETS_FOLDER}/".startswith(f"{path}/") or path in {TMP, SHARED_MEMORY}
    )
