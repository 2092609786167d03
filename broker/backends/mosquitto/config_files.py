"""Writes what Mosquitto starts with: its configuration, and a state that admits only the system.

The state is written anew at every start, so that no right survives in it: the reconciler writes the
rights again from the registry.
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
"""Prefix of the system's own client names and roles."""
MOST_BYTES = 8 * 1024 * 1024
_SYSTEM, _CONTROL = f"{RESERVED}system", f"{RESERVED}control"
_READ = ("subscribeLiteral", "publishClientReceive")


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoDeployment:
    """Address and paths of a Mosquitto.

    mqtt: address of its listener.  state: its folder, which the reconciler writes into as well.
    user: account it runs as if it is started as root.  certificate: of its listener, None for no
    TLS.  plugin: the shared library of its dynamic security.
    """

    mqtt: Address
    state: Path
    user: str
    certificate: Certificate | None
    plugin: Path


def config(deployment: MosquittoDeployment) -> str:
    """Return the configuration file; it holds no secret.

    Every client id is the user's name, whatever the client asks for: no session has two owners.  A
    retained message is judged by its reader's rights alone, as on NATS.  A recorder acknowledges
    after its store: thousands of messages are in flight, and none may be dropped.  The log goes
    onto the bus as well, where the reconciler reads connections and their ends.
    """
    tls = []
    if deployment.certificate is not None:
        certificate = deployment.certificate
        tls = [f"certfile {certificate.chain}", f"keyfile {certificate.key}", "tls_version tlsv1.2"]
    lines = [
        f"user {deployment.user}",
        f"pid_file {deployment.state / PID}",
        f"plugin {deployment.plugin}",
        f"plugin_opt_config_file {deployment.state / SEED}",
        f"password_file {deployment.state / PASSWORDS}",
        "allow_anonymous false",
        "check_retain_source false",
        "set_tcp_nodelay true",  # else an answer to a small message waits 40 ms for an ACK of TCP
        "persistence true",
        f"persistence_location {deployment.state}/",
        "autosave_interval 60",
        "max_inflight_messages 20000",
        "max_queued_messages 1000000",
        "max_queued_bytes 0",
        f"message_size_limit {MOST_BYTES}",
        "log_dest stderr",
        "log_dest topic",
        "log_timestamp true",
        "connection_messages true",
        f"listener {deployment.mqtt.port} {deployment.mqtt.host}",
        "use_username_as_clientid true",
        *tls,
    ]
    return "\n".join(lines) + "\n"


def initial_state(system: Iterable[Credential], controller: Credential) -> str:
    """Return the initial dynamic security state: the system's own clients, and deny for the rest.

    system: credentials that read and write all topics of the testbed.  controller: one that also
    writes the roles and reads the log.
    """
    state = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            *(_client(client, (_SYSTEM,)) for client in system),
            _client(controller, (_SYSTEM, _CONTROL)),
        ],
        "groups": [],
        "roles": [
            {"rolename": _SYSTEM, "acls": _read_write(f"{ROOT}/#")},
            {
                "rolename": _CONTROL,
                "acls": [*_read_write("$CONTROL/dynamic-security/#"), *_read(f"{LOG}/#")],
            },
        ],
    }
    return orjson.dumps(state, option=orjson.OPT_INDENT_2).decode()


def is_system(name: str) -> bool:
    """Return whether a name is that of a part of the testbed, or of its role."""
    return name.startswith(RESERVED)


def write_initial_state(seed_file: Path, state: Path) -> None:
    """Replace the rights by the initial state; sessions and retained messages stay."""
    for name, text in ((SEED, seed_file.read_text()), (PASSWORDS, "")):
        file = state / name
        file.touch(mode=0o600)
        file.write_text(text)


def acls(topics: Topics) -> list[dict[str, Any]]:
    """Return a role's rules: to publish, and to subscribe and receive, exactly these topics."""
    return [
        *_allow("publishClientSend", topics.publish),
        *(rule for kind in _READ for rule in _allow(kind, topics.subscribe)),
    ]


def _read_write(topic_filter: str) -> list[dict[str, Any]]:
    return [*_allow("publishClientSend", (topic_filter,)), *_read(topic_filter)]


def _read(topic_filter: str) -> list[dict[str, Any]]:
    kinds = ("publishClientReceive", "subscribePattern")
    return [rule for kind in kinds for rule in _allow(kind, (topic_filter,))]


def _allow(kind: str, topics: Iterable[str]) -> Iterable[dict[str, Any]]:
    return (
        {"acltype": kind, "topic": topic, "priority": 0, "allow": True} for topic in sorted(topics)
    )


def _client(client: Credential, roles: Iterable[str]) -> dict[str, Any]:
    rounds, salt, derived = credential.verifier(client.secret).removeprefix("$7$").split("$")
    return {
        "username": client.principal,
        "password": derived,
        "salt": salt,
        "iterations": int(rounds),
        "roles": [{"rolename": role, "priority": 0} for role in roles],
    }
