"""Reads and writes the clients and roles of Mosquitto 2's dynamic security.

Mosquitto decides by its own files.  Its password file holds the clients that may connect, as salted
hashes, and is read again at a SIGHUP; the roles of its dynamic security plugin hold their topics,
and are written over `$CONTROL`.  A client in the first and not in the second connects and may do
nothing.

Source: mosquitto 2.0.11, plugins/dynamic-security; what was tried on it is in decision 0034.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from broker.backends.mosquitto.config_files import PASSWORDS, PID, acls, is_system
from broker.bus import client
from broker.bus.client import Bus, Inbox
from broker.errors import Corrupt, Unavailable
from broker.policy import Topics
from broker.process import sockets
from broker.process.sockets import Peer

CONTROL = "$CONTROL/dynamic-security/v1"
RESPONSES = f"{CONTROL}/response"
ANSWER_S = 5.0
AT_ONCE = 30
"""Commands in one message: Mosquitto writes its file after each, and stands still meanwhile."""
PROCESS = "mosquitto"


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """Topics of an admitted client, and the hash of its secret."""

    topics: Topics
    verifier: str = field(repr=False)


class Projection:
    """The rights as a running Mosquitto holds them; only one task may write them."""

    def __init__(self, bus: Bus, inbox: Inbox, folder: Path) -> None:
        """Made by `project`."""
        self._bus = bus
        self._inbox = inbox
        self._folder = folder

    async def read(self) -> dict[str, ClientAccess]:
        """Return the admitted clients, after removing those that are incomplete.

        Raises Unavailable if Mosquitto does not answer.
        """
        await self._reload()  # a process that then died may have written the file
        role_list, client_list = await self._send(
            {"command": "listRoles", "verbose": True, "count": -1},
            {"command": "listClients", "verbose": True, "count": -1},
        )
        roles = {role["rolename"]: _topics(role["acls"]) for role in role_list["data"]["roles"]}
        clients = {each["username"]: each for each in client_list["data"]["clients"]}
        hashes = self._passwords()
        complete = {
            name: ClientAccess(roles[name], hashes[name])
            for name, each in clients.items()
            if name in roles and name in hashes and _is_complete(each)
        }
        names = {*clients, *roles, *hashes} - {*complete}
        incomplete = {name for name in names if not is_system(name)}
        await self._remove(incomplete, clients, roles)
        return complete

    async def write(
        self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]
    ) -> None:
        """Admit the clients in `wanted`, as there, and no others.

        held: result of `read`, or `wanted` of the last `write`.  Rights that end are removed first.
        Connections of clients whose topics or secret changed end.  Raises Unavailable if Mosquitto
        does not confirm all of it: then `read` says what is done.
        """
        removed = [name for name in sorted(held) if name not in wanted]
        changed = [
            name
            for name in sorted(held)
            if name in wanted and held[name].topics != wanted[name].topics
        ]
        added = [name for name in sorted(wanted) if name not in held]
        await self._execute(
            *(command for name in changed for command in _modify(name, wanted[name].topics)),
            *(command for name in removed for command in _delete(name)),
            *(command for name in added for command in _create(name, wanted[name].topics)),
        )
        passwords = {name: access.verifier for name, access in wanted.items()}
        if passwords != {name: access.verifier for name, access in held.items()}:
            await self._admit(passwords)

    async def disconnect_others(
        self, held: Mapping[str, ClientAccess], staying: Collection[str]
    ) -> None:
        """End the connections of all clients in `held` but those in `staying`; all may come again.

        Raises Unavailable if Mosquitto does not confirm it: then `read` says what it holds.
        """
        passwords = {name: access.verifier for name, access in held.items()}
        await self._admit({name: text for name, text in passwords.items() if name in staying})
        await self._admit(passwords)

    def peers(self) -> set[Peer]:
        """Return the peers of Mosquitto's established connections; raises Unavailable."""
        try:
            return sockets.established(_pid(self._folder))
        except (OSError, ValueError) as exc:
            raise _unreachable(self._folder, exc) from exc

    # --- dynamic security -------------------------------------------------------------------------

    async def _remove(
        self, names: Collection[str], clients: Collection[str], roles: Collection[str]
    ) -> None:
        if not names:
            return
        rest = {name: text for name, text in self._passwords().items() if name not in names}
        await self._execute(
            *({"command": "deleteClient", "username": name} for name in names if name in clients),
            *({"command": "deleteRole", "rolename": name} for name in names if name in roles),
        )
        await self._admit(rest)

    async def _execute(self, *commands: Mapping[str, Any]) -> None:
        for first in range(0, len(commands), AT_ONCE):
            await self._send(*commands[first : first + AT_ONCE])

    async def _send(self, *commands: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Send commands and return their responses; raises Unavailable if one is refused."""
        correlation = secrets.token_hex(8)
        body = {"commands": [{**command, "correlationData": correlation} for command in commands]}
        await self._bus.publish(CONTROL, orjson.dumps(body))
        try:
            async with asyncio.timeout(ANSWER_S):
                responses = await self._responses(correlation)
        except TimeoutError as exc:
            raise Unavailable(
                f"mosquitto did not answer on {RESPONSES} in {ANSWER_S:g} s",
                hint="is its dynamic security loaded, and started from what broker-config wrote?",
            ) from exc
        for response in responses:
            if "error" in response:
                raise Unavailable(f"mosquitto did not {response['command']}: {response['error']}")
        return responses

    async def _responses(self, correlation: str) -> list[dict[str, Any]]:
        async for message in self._inbox:
            self._inbox.ack(message)
            try:
                responses: list[dict[str, Any]] = orjson.loads(message.payload)["responses"]
            except (KeyError, TypeError, ValueError) as exc:
                raise Corrupt(f"mosquitto's response is malformed: {exc}") from exc
            if responses and responses[0].get("correlationData") == correlation:
                return responses
        raise AssertionError  # an inbox has no end

    # --- the password file ------------------------------------------------------------------------

    def _passwords(self) -> dict[str, str]:
        try:
            lines = (self._folder / PASSWORDS).read_text().splitlines()
        except OSError as exc:
            raise _unreachable(self._folder, exc) from exc
        return {name: text for name, _, text in (line.partition(":") for line in lines)}

    async def _admit(self, passwords: Mapping[str, str]) -> None:
        """Write the password file: admit these, and end the connections of all others."""
        text = "".join(f"{name}:{passwords[name]}\n" for name in sorted(passwords))
        file = self._folder / PASSWORDS
        new = file.with_name(f".{PASSWORDS}.new")
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as out:
                out.write(text)
            new.rename(file)
        except OSError as exc:
            raise _unreachable(self._folder, exc) from exc
        await self._reload()

    async def _reload(self) -> None:
        """Make Mosquitto read the password file, and return once it has.

        Mosquitto has one thread: a question wakes it and lets it see the signal, so by its second
        answer it has read the file.
        """
        _signal(self._folder)
        for _ in range(2):
            await self._send({"command": "getDefaultACLAccess"})


@asynccontextmanager
async def project(bus: client.Bus, folder: Path) -> AsyncIterator[Projection]:
    """Open the rights of a Mosquitto on this machine, to be read and written over `bus`.

    folder: holds its password file and its process id.
    """
    async with bus.subscribe([RESPONSES], capacity=100, overflow="drop_oldest") as inbox:
        yield Projection(bus, inbox, folder)


def _pid(folder: Path) -> int:
    """Return Mosquitto's process id; raises OSError or ValueError if there is none."""
    pid = int((folder / PID).read_text())
    if sockets.process_name(pid) != PROCESS:
        raise ProcessLookupError(0, f"process {pid} is another one by now")
    return pid


def _signal(folder: Path) -> None:
    try:
        os.kill(_pid(folder), signal.SIGHUP)
    except (OSError, ValueError) as exc:
        raise _unreachable(folder, exc) from exc


def _create(principal: str, topics: Topics) -> Iterator[dict[str, Any]]:
    yield {"command": "createRole", "rolename": principal, "acls": acls(topics)}
    yield {
        "command": "createClient",
        "username": principal,
        "roles": [{"rolename": principal, "priority": 0}],
    }


def _modify(principal: str, topics: Topics) -> Iterator[dict[str, Any]]:
    yield {"command": "modifyRole", "rolename": principal, "acls": acls(topics)}
    yield from _disconnect(principal)


def _disconnect(principal: str) -> Iterator[dict[str, Any]]:
    """Disable and enable a client: it has no disconnect command, and disabling disconnects."""
    yield {"command": "disableClient", "username": principal}
    yield {"command": "enableClient", "username": principal}


def _delete(principal: str) -> Iterator[dict[str, Any]]:
    yield {"command": "disableClient", "username": principal}
    yield {"command": "deleteClient", "username": principal}
    yield {"command": "deleteRole", "rolename": principal}


def _topics(listed: Sequence[Mapping[str, Any]]) -> Topics:
    """Read a role's rules back; one with any rule that `acls` does not make is not ours."""
    by_kind: dict[str, set[str]] = {}
    for rule in listed:
        by_kind.setdefault(rule["acltype"], set()).add(rule["topic"])
    read = by_kind.get("subscribeLiteral", set())
    topics = Topics(frozenset(by_kind.get("publishClientSend", ())), frozenset(read))
    same = sorted(map(_line, acls(topics))) == sorted(map(_line, listed))
    return topics if same else Topics(publish=frozenset({"?"}))


def _line(acl: Mapping[str, Any]) -> tuple[str, str, bool]:
    return acl["acltype"], acl["topic"], acl["allow"]


def _is_complete(client_: Mapping[str, Any]) -> bool:
    roles = [role["rolename"] for role in client_.get("roles", ())]
    own_role = roles == [client_["username"]] and not client_.get("groups")
    return own_role and not client_.get("disabled", False)


def _unreachable(folder: Path, exc: Exception) -> Unavailable:
    return Unavailable(
        f"mosquitto's files in {folder} cannot be used: {exc}",
        hint="TESTBED_BROKER_FOLDER names the folder of a mosquitto that runs on this machine,"
        " as the same user",
    )
