"""What Mosquitto is started with: its configuration, and a state in which only the system gets in.

The state is laid anew at every start, so that what stood in it before is nobody's right afterwards:
the reconciler writes it again from the registry.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from broker import credential
from broker.backends.mosquitto.log_parser import LOG
from broker.credential import Credential
from broker.namespace import ROOT
from broker.policy import Topics
from broker.settings import Address
from broker.tls import Certificate

CONFIG = "mosquitto.conf"
SEED = "dynamic-security.json"
PASSWORDS = "passwords"
PID = "mosquitto.pid"
RESERVED = "testbed-"
"""The system's own names, and those of its roles, begin with it."""
MOST_BYTES = 8 * 1024 * 1024
_SYSTEM, _CONTROL = f"{RESERVED}system", f"{RESERVED}control"
_READ = ("subscribeLiteral", "publishClientReceive")


@dataclass(frozen=True, slots=True)
class MosquittoDeployment:
    """Where a Mosquitto listens, and what it finds where.

    state: its folder, which the reconciler writes into as well.  user: whom it becomes if it is
    started as root.  certificate: what it shows, None for no TLS.
    """

    mqtt: Address
    state: Path
    user: str
    certificate: Certificate | None
    plugin: Path


def config(place: MosquittoDeployment) -> str:
    """Its configuration; there is no secret in it.

    A client id is the user's name, whatever was asked for: no session has two owners.  A retained
    message is judged by its reader's rights alone, as on NATS.  A recorder acknowledges after its
    store: thousands are in flight, and none may be dropped.  Its log goes onto the bus as well, for
    the reconciler, who learns there who comes and goes.
    """
    tls = []
    if place.certificate is not None:
        shown = place.certificate
        tls = [f"certfile {shown.chain}", f"keyfile {shown.key}", "tls_version tlsv1.2"]
    lines = [
        f"user {place.user}",
        f"pid_file {place.state / PID}",
        f"plugin {place.plugin}",
        f"plugin_opt_config_file {place.state / SEED}",
        f"password_file {place.state / PASSWORDS}",
        "allow_anonymous false",
        "check_retain_source false",
        "persistence true",
        f"persistence_location {place.state}/",
        "autosave_interval 60",
        "max_inflight_messages 20000",
        "max_queued_messages 1000000",
        "max_queued_bytes 0",
        f"message_size_limit {MOST_BYTES}",
        "log_dest stderr",
        "log_dest topic",
        "log_timestamp true",
        "connection_messages true",
        f"listener {place.mqtt.port} {place.mqtt.host}",
        "use_username_as_clientid true",
        *tls,
    ]
    return "\n".join(lines) + "\n"


def initial_state(system: Iterable[Credential], controller: Credential) -> str:
    """The dynamic security that a start begins with: the system's own, and deny for the rest.

    system: those who read and write everything of the testbed.  controller: who does that, and
    writes the roles and hears the log.
    """
    state = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            *(_client(one, (_SYSTEM,)) for one in system),
            _client(controller, (_SYSTEM, _CONTROL)),
        ],
        "groups": [],
        "roles": [
            {"rolename": _SYSTEM, "acls": _everything(f"{ROOT}/#")},
            {
                "rolename": _CONTROL,
                "acls": [*_everything("$CONTROL/dynamic-security/#"), *_heard(f"{LOG}/#")],
            },
        ],
    }
    return orjson.dumps(state, option=orjson.OPT_INDENT_2).decode()


def is_system(name: str) -> bool:
    """Whether it is the name of a part of the testbed, or of its role."""
    return name.startswith(RESERVED)


def write_initial_state(seed_file: Path, state: Path) -> None:
    """Make the state what a start begins with; sessions and retained messages stay."""
    for name, text in ((SEED, seed_file.read_text()), (PASSWORDS, "")):
        file = state / name
        file.touch(mode=0o600)
        file.write_text(text)


def acls(topics: Topics) -> list[dict[str, Any]]:
    """A role's rules: to publish, and to subscribe and receive, these topics and no filter."""
    return [
        *_allowed("publishClientSend", topics.publish),
        *(rule for kind in _READ for rule in _allowed(kind, topics.subscribe)),
    ]


def _everything(topic_filter: str) -> list[dict[str, Any]]:
    return [*_allowed("publishClientSend", (topic_filter,)), *_heard(topic_filter)]


def _heard(topic_filter: str) -> list[dict[str, Any]]:
    kinds = ("publishClientReceive", "subscribePattern")
    return [rule for kind in kinds for rule in _allowed(kind, (topic_filter,))]


def _allowed(kind: str, topics: Iterable[str]) -> Iterable[dict[str, Any]]:
    return ({"acltype": kind, "topic": one, "priority": 0, "allow": True} for one in sorted(topics))


def _client(one: Credential, roles: Iterable[str]) -> dict[str, Any]:
    rounds, salt, derived = credential.verifier(one.secret).removeprefix("$7$").split("$")
    return {
        "username": one.principal,
        "password": derived,
        "salt": salt,
        "iterations": int(rounds),
        "roles": [{"rolename": role, "priority": 0} for role in roles],
    }
