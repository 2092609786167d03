"""The broker: Mosquitto 2, whose dynamic security holds what the policy lists for everybody.

Mosquitto asks nobody.  Who may come in stands in its password file, as salted hashes, which it
reads again at a SIGHUP; what they may do stands in roles of its dynamic security plugin, which are
written over `$CONTROL`.  Whoever is in the first and not in the second gets in and may do nothing.

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
"""Commands a message: Mosquitto writes its file after each, and moves no message meanwhile."""
PROCESS = "mosquitto"


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """Somebody who is let in: to exactly these topics, with a secret that this is the hash of."""

    topics: Topics
    verifier: str = field(repr=False)


class Projection:
    """What a running Mosquitto holds of the rights.  One task writes it, and nobody else."""

    def __init__(self, bus: Bus, inbox: Inbox, folder: Path) -> None:
        """Made by `project`."""
        self._bus = bus
        self._inbox = inbox
        self._folder = folder

    async def read(self) -> dict[str, ClientAccess]:
        """Who is admitted now; what is only half there is taken out first.

        Raises Unavailable if Mosquitto does not answer.
        """
        await self._reload()  # the file may have been written by one who then died
        roles, clients = await self._ask(
            {"command": "listRoles", "verbose": True, "count": -1},
            {"command": "listClients", "verbose": True, "count": -1},
        )
        found = {one["rolename"]: _topics(one["acls"]) for one in roles["data"]["roles"]}
        known = {one["username"]: one for one in clients["data"]["clients"]}
        shown = self._passwords()
        whole = {
            name: ClientAccess(found[name], shown[name])
            for name, one in known.items()
            if name in found and name in shown and _is_whole(one)
        }
        strange = {one for one in {*known, *found, *shown} - {*whole} if not is_system(one)}
        await self._take_out({name: shown.get(name, "") for name in strange}, known, found)
        return whole

    async def write(
        self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]
    ) -> None:
        """Admit who is in `wanted`, as there, and nobody else.

        held: what `read` or the last `write` left.  Who loses rights loses them first.  Connections
        of those whose topics or secret changed end.  Raises Unavailable if Mosquitto does not
        confirm all of it: then `read` says what is done.
        """
        gone = [one for one in sorted(held) if one not in wanted]
        changed = [one for one in sorted(held) if one in wanted and held[one] != wanted[one]]
        changed = [one for one in changed if held[one].topics != wanted[one].topics]
        new = [one for one in sorted(wanted) if one not in held]
        await self._obey(
            *(order for one in changed for order in _changing(one, wanted[one].topics)),
            *(order for one in gone for order in _removing(one)),
            *(order for one in new for order in _making(one, wanted[one].topics)),
        )
        passwords = {one: admitted.verifier for one, admitted in wanted.items()}
        if passwords != {one: admitted.verifier for one, admitted in held.items()}:
            await self._admit(passwords)

    async def disconnect_others(
        self, held: Mapping[str, ClientAccess], staying: Collection[str]
    ) -> None:
        """End the connections of all who are in `held` but of those who stay; all may come again.

        Raises Unavailable if Mosquitto does not confirm it: then `read` says who is in.
        """
        passwords = {one: admitted.verifier for one, admitted in held.items()}
        await self._admit({one: text for one, text in passwords.items() if one in staying})
        await self._admit(passwords)

    def peers(self) -> set[Peer]:
        """Peers of Mosquitto's established connections; raises Unavailable."""
        try:
            return sockets.established(_pid(self._folder))
        except (OSError, ValueError) as exc:
            raise _unreachable(self._folder, exc) from exc

    # --- dynamic security -------------------------------------------------------------------------

    async def _take_out(
        self, strange: Mapping[str, str], clients: Mapping[str, Any], roles: Mapping[str, Any]
    ) -> None:
        if not strange:
            return
        kept = {one: text for one, text in self._passwords().items() if one not in strange}
        await self._obey(
            *({"command": "deleteClient", "username": one} for one in strange if one in clients),
            *({"command": "deleteRole", "rolename": one} for one in strange if one in roles),
        )
        await self._admit(kept)

    async def _obey(self, *orders: Mapping[str, Any]) -> None:
        for first in range(0, len(orders), AT_ONCE):
            await self._ask(*orders[first : first + AT_ONCE])

    async def _ask(self, *commands: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """What Mosquitto says to each; raises Unavailable if it refuses one."""
        mine = secrets.token_hex(8)
        body = {"commands": [{**one, "correlationData": mine} for one in commands]}
        await self._bus.publish(CONTROL, orjson.dumps(body))
        try:
            async with asyncio.timeout(ANSWER_S):
                answers = await self._answer(mine)
        except TimeoutError as exc:
            raise Unavailable(
                f"mosquitto did not answer on {RESPONSES} in {ANSWER_S:g} s",
                hint="is its dynamic security loaded, and started from what broker-config wrote?",
            ) from exc
        for one in answers:
            if "error" in one:
                raise Unavailable(f"mosquitto did not {one['command']}: {one['error']}")
        return answers

    async def _answer(self, mine: str) -> list[dict[str, Any]]:
        async for message in self._inbox:
            self._inbox.ack(message)
            try:
                answers: list[dict[str, Any]] = orjson.loads(message.payload)["responses"]
            except (KeyError, TypeError, ValueError) as exc:
                raise Corrupt(f"mosquitto's answer lacks sense: {exc}") from exc
            if answers and answers[0].get("correlationData") == mine:
                return answers
        raise AssertionError  # an inbox has no end

    # --- who may come in --------------------------------------------------------------------------

    def _passwords(self) -> dict[str, str]:
        try:
            lines = (self._folder / PASSWORDS).read_text().splitlines()
        except OSError as exc:
            raise _unreachable(self._folder, exc) from exc
        return {name: text for name, _, text in (one.partition(":") for one in lines)}

    async def _admit(self, passwords: Mapping[str, str]) -> None:
        """Let in these, and end the connections of others."""
        text = "".join(f"{one}:{passwords[one]}\n" for one in sorted(passwords))
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
        """Have the password file read, and return when it was.

        Mosquitto has one thread: a question wakes it and lets it see the signal, so by its second
        answer it has read the file.
        """
        _signal(self._folder)
        for _ in range(2):
            await self._ask({"command": "getDefaultACLAccess"})


@asynccontextmanager
async def project(bus: client.Bus, folder: Path) -> AsyncIterator[Projection]:
    """The rights as Mosquitto holds them, to be read and written over `bus`.

    folder: where Mosquitto has its password file and its process id, which is of this machine.
    """
    async with bus.subscribe([RESPONSES], capacity=100, overflow="drop_oldest") as inbox:
        yield Projection(bus, inbox, folder)


def _pid(folder: Path) -> int:
    """Mosquitto's; raises OSError or ValueError where it is not to be found."""
    pid = int((folder / PID).read_text())
    if sockets.process_name(pid) != PROCESS:
        raise ProcessLookupError(0, f"process {pid} is another one by now")
    return pid


def _signal(folder: Path) -> None:
    try:
        os.kill(_pid(folder), signal.SIGHUP)
    except (OSError, ValueError) as exc:
        raise _unreachable(folder, exc) from exc


def _making(principal: str, topics: Topics) -> Iterator[dict[str, Any]]:
    yield {"command": "createRole", "rolename": principal, "acls": acls(topics)}
    yield {
        "command": "createClient",
        "username": principal,
        "roles": [{"rolename": principal, "priority": 0}],
    }


def _changing(principal: str, topics: Topics) -> Iterator[dict[str, Any]]:
    yield {"command": "modifyRole", "rolename": principal, "acls": acls(topics)}
    yield from _disconnecting(principal)


def _disconnecting(principal: str) -> Iterator[dict[str, Any]]:
    """Mosquitto has no word for it; it ends the connections of a client that it disables."""
    yield {"command": "disableClient", "username": principal}
    yield {"command": "enableClient", "username": principal}


def _removing(principal: str) -> Iterator[dict[str, Any]]:
    yield {"command": "disableClient", "username": principal}
    yield {"command": "deleteClient", "username": principal}
    yield {"command": "deleteRole", "rolename": principal}


def _topics(listed: Sequence[Mapping[str, Any]]) -> Topics:
    """Read a role back; one that says anything else than `acls` would is none of ours."""
    by_kind: dict[str, set[str]] = {}
    for one in listed:
        by_kind.setdefault(one["acltype"], set()).add(one["topic"])
    read = by_kind.get("subscribeLiteral", set())
    topics = Topics(frozenset(by_kind.get("publishClientSend", ())), frozenset(read))
    same = sorted(map(_line, acls(topics))) == sorted(map(_line, listed))
    return topics if same else Topics(publish=frozenset({"?"}))


def _line(acl: Mapping[str, Any]) -> tuple[str, str, bool]:
    return acl["acltype"], acl["topic"], acl["allow"]


def _is_whole(one: Mapping[str, Any]) -> bool:
    roles = [role["rolename"] for role in one.get("roles", ())]
    alone = roles == [one["username"]] and not one.get("groups")
    return alone and not one.get("disabled", False)


def _unreachable(folder: Path, exc: Exception) -> Unavailable:
    return Unavailable(
        f"mosquitto's files in {folder} are not to be used: {exc}",
        hint="TESTBED_BROKER_FOLDER names the folder of a mosquitto that runs on this machine,"
        " as the same user",
    )
