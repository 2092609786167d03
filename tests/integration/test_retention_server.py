"""Retention and deletion through a running server: its API, its rights and its commands."""

import asyncio
import os
import sys

import orjson
import pytest

from broker import api_client
from broker.batch import Gap
from broker.errors import Forbidden, Invalid, Unknown
from broker.namespace import Verb
from tests.integration.test_server import (
    RIG,
    SPACE,
    T0,
    announce,
    batch,
    credential,
    history,
    machine,
    marked,
    publish,
    serving,
)
from tests.owners import founded

GONE = f"/streams/{RIG}/deletions"
KEPT = f"/streams/{RIG}/retention"


@pytest.fixture
async def rig(server, owners):
    """The bus, with three samples stored."""
    async with machine(server, owners) as out:
        await announce(out)
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.0, 2.0, 3.0])))
        yield out


async def command(server, *arguments, secret=None):
    """Run a command and return its exit code, its output and its error output.

    secret: credential to use instead of the administrator's.
    """
    environment = os.environ | {
        "TESTBED_API": f"http://{server.api}",
        "TESTBED_CREDENTIAL": secret or server.administrator,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "testbed", *map(str, arguments)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = await child.communicate()
    child._transport.close()
    return child.returncode, printed.decode(), complained.decode()


async def test_what_was_deleted_does_not_come_back_with_a_batch_sent_again(rig, owners):
    answer = await owners.request("POST", GONE, json={"space": SPACE, "why": "a trial"})
    (proof,) = answer["items"]
    assert (proof["samples"], proof["left"], proof["by"]) == (3, 0, "factory-owner")
    await marked(rig, 1, then=lambda: publish(rig, batch(1, [1.0, 2.0, 3.0]), Verb.LATE))
    stored = await history(owners)
    assert stored["frames"] == []
    (gap,) = stored["gaps"]
    assert (gap["signals"], gap["cause"]) == ([], "deleted")
    listed = await owners.request("GET", GONE, params={"space": SPACE})
    assert listed == {"items": [proof], "next": None}
    assert (await owners.request("GET", GONE))["items"] == []


async def test_only_a_part_goes_if_that_is_what_is_asked(rig, owners):
    await marked(rig, 2, then=lambda: publish(rig, batch(2, [9.0], start=T0 + 10**9)))
    body = {"space": SPACE, "from": "2023-11-14T22:13:21Z"}
    (proof,) = (await owners.request("POST", GONE, json=body))["items"]
    assert (proof["samples"], proof["from"]) == (1, "2023-11-14T22:13:21.000000000Z")
    (frame,) = (await history(owners))["frames"]
    assert frame["value"] == [1.0, 2.0, 3.0]


@pytest.mark.usefixtures("rig")
async def test_only_its_owners_delete_and_only_readers_see_it(server, owners):
    key = await credential(owners, "reader", reads=[RIG])
    async with api_client.connect(f"http://{server.api}", key) as reader:
        for method, path, body in (
            ("POST", GONE, {"space": SPACE}),
            ("PUT", KEPT, {"keep_days": 1}),
        ):
            with pytest.raises(Forbidden):
                await reader.request(method, path, json=body)
        assert (await reader.request("GET", GONE, params={"space": SPACE}))["items"] == []
        assert (await reader.request("GET", KEPT))["keep_days"] is None
    async with api_client.connect(f"http://{server.api}", server.administrator) as administrator:
        for method, path, body in (
            ("GET", KEPT, None),
            ("GET", GONE, None),
            ("POST", GONE, {}),
            ("PUT", KEPT, {"keep_days": 1}),
        ):
            with pytest.raises(Unknown):
                await administrator.request(method, path, json=body)
        assert (await administrator.request("GET", "/retentions"))["items"] == []
    key = await credential(owners, "stranger")
    async with api_client.connect(f"http://{server.api}", key) as stranger:
        for path in (GONE, KEPT):
            with pytest.raises(Unknown):
                await stranger.request("GET", path)


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"to": "2100-01-01T00:00:00Z"}, "lies in the future"),
        ({"from": "2023-01-01T00:00:00Z", "to": "2022-01-01T00:00:00Z"}, "empty or inverted"),
        ({"from": "yesterday"}, "is not an instant"),
        ({"signals": ["Pressure"]}, "signals: there is no such field"),
    ],
)
async def test_a_span_that_cannot_be_meant_is_refused(owners, body, sentence):
    with pytest.raises(Invalid, match=sentence):
        await owners.request("POST", GONE, json={"space": SPACE} | body)
    assert (await history(owners))["frames"] != []


@pytest.mark.parametrize("days", [0, -1, 1e9, "week"])
async def test_a_time_that_cannot_be_kept_is_refused(rig, owners, days):  # noqa: ARG001
    with pytest.raises(Invalid, match="keep_days"):
        await owners.request("PUT", KEPT, json={"keep_days": days})


@pytest.mark.usefixtures("rig")
@pytest.mark.timeout(60)  # they are processes of their own
async def test_the_commands_say_what_is_kept_and_what_is_gone(server, owners):
    code, printed, _ = await command(
        server, "retention", "set", RIG, "--keep-for", "36500d", secret=owners.secret
    )
    assert (code, printed) == (0, f"{RIG} is kept for 36500d\n")
    code, printed, _ = await command(server, "retention", "list", "--json", secret=owners.secret)
    assert orjson.loads(printed) == {"items": [{"stream": str(RIG), "keep_days": 36500.0}]}
    code, printed, complained = await command(
        server, "delete", RIG, "--space", SPACE, secret=owners.secret
    )
    assert (code, printed) == (2, "")
    assert "nothing was deleted" in complained
    assert "--yes" in complained
    code, printed, _ = await command(
        server, "delete", RIG, "--space", SPACE, "--yes", "--reason", "x", secret=owners.secret
    )
    assert code == 0
    assert "3 samples deleted, nothing is left" in printed
    assert "3 of Pressure" in printed
    assert "request factory-owner: x" in printed
    code, again, _ = await command(server, "deletions", RIG, "--space", SPACE, secret=owners.secret)
    assert (code, again) == (0, printed)
    assert (await history(owners))["frames"] == []


async def test_a_server_deletes_at_its_start_what_was_kept_long_enough(tmp_path):
    gap = Gap((), T0 - 5, T0 - 4, "gateway-down")
    async with (
        serving(tmp_path / "data") as server,
        founded(f"http://{server.api}", server.administrator) as door,
        machine(server, door) as out,
    ):
        await announce(out)
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.0], gaps=(gap,))))
        await door.request("PUT", KEPT, json={"keep_days": 30})
        secret = door.secret
    async with (
        serving(tmp_path / "data") as server,
        api_client.connect(f"http://{server.api}", secret) as door,
        asyncio.timeout(10),
    ):
        while (await history(door))["frames"]:
            pass
        proofs = (await door.request("GET", GONE, params={"space": SPACE}))["items"]
        while proofs[0]["done"] is None:
            proofs = (await door.request("GET", GONE, params={"space": SPACE}))["items"]
        assert (proofs[0]["samples"], proofs[0]["gaps"], proofs[0]["from"]) == (1, 1, None)
        (hole,) = (await history(door))["gaps"]
        assert hole["cause"] == "deleted"


@pytest.mark.usefixtures("rig")
@pytest.mark.timeout(60)  # they are processes of their own
async def test_a_command_takes_its_space_from_the_environment_unless_it_is_told(
    server, owners, monkeypatch
):
    monkeypatch.setenv("TESTBED_SPACE", SPACE)
    whole = ("history", RIG, "--signal", "Pressure", "--from", "2020-01-01")
    code, printed, _ = await command(server, *whole, secret=owners.secret)
    assert (code, [row.partition(",")[2] for row in printed.split()]) == (
        0,
        ["Pressure", "1.0", "2.0", "3.0"],
    )
    code, printed, _ = await command(server, *whole, "--space", "live", secret=owners.secret)
    assert (code, printed.split()) == (0, ["time,Pressure"])
    _, _, complained = await command(server, "delete", RIG, secret=owners.secret)
    assert f"nothing was deleted of {RIG} in {SPACE}" in complained
