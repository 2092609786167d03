"""Why a deployment is in its state, in one answer, and what happens to it, as it happens."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from broker.clock import NS_PER_S, WallClock
from broker.rights import Role
from testbed_api.http import deployment_events
from testbed_api.http.deployment_events import FollowPosition
from testbed_api.http.rights_watch import LOOK_EVERY_S
from testbed_api.limits.quotas import QuotaSettings
from tests.integration.api_bed import START_NS, assert_problem

METRICS = {"cpu_s": 1.0, "memory_bytes": 7, "pids": 1, "restarts": 0} | dict.fromkeys(
    ("messages_in", "messages_out", "bytes_in", "bytes_out"), 3
)


def lines(*numbers):
    return [{"number": at, "at_ns": START_NS + at, "text": f"line {at}"} for at in numbers]


async def why(bed, who, number):
    answer = await bed.ask(who, "GET", f"/deployments/{number}/why")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_one_answer_says_why_it_failed_and_what_to_do(bed, deploying, site, admin):
    number = (await deploying.deployed())["id"]
    await site.events(number, "pulling", "starting", "connecting", "running")
    await site.report({"id": number, "lines": lines(*range(1, 71))})
    end = {
        "cause": "memory",
        "phase": "running",
        "reason": "it was killed as it used more than 256 MiB",
        "exit_code": 137,
        "signal": 9,
        "limit": "memory 256 MiB",
    }
    ended = {"state": "ended", "reason": end["reason"], "end": end}
    await site.events(number, ended, first=5)
    said = await why(bed, deploying.cora, number)
    assert said["sentence"] == (
        f"deployment {number} of watch ended at 2026-11-23T12:00:00.000000000Z, while running:"
        " it was killed as it used more than 256 MiB"
    )
    assert (said["end"]["exit_code"], said["end"]["limit"]) == (137, "memory 256 MiB")
    assert "resources.memory" in said["todo"][0]
    assert [each["number"] for each in said["last_lines"]] == list(range(21, 71))
    assert [each["state"] for each in said["events"]][-2:] == ["running", "ended"]
    operator = await why(bed, admin, number)
    assert (operator["sentence"], operator["last_lines"]) == (said["sentence"], [])
    stranger = await bed.person("sam", "factory", Role.OWNER)
    answer = await bed.ask(stranger, "GET", f"/deployments/{number}/why")
    assert_problem(answer, 404, "unknown", "no deployment")


async def test_one_that_waits_says_for_what_and_one_that_came_back_what_happened(
    bed, deploying, admin
):
    number = (await deploying.deployed())["id"]
    said = await why(bed, deploying.cora, number)
    assert "is waiting since" in said["sentence"]
    assert "no site opens to company" in said["sentence"]
    assert said["todo"]
    assert (said["end"], said["deployment"]["place"]) == (None, 1)
    site = await deploying.site(admin)
    await site.events(number, "starting", "connecting", "running")
    end = {"cause": "failed", "phase": "running", "reason": "exit code 1", "exit_code": 1}
    again = {"state": "waiting", "reason": "it is started again in 2 s", "end": end}
    await site.events(number, again, first=4)
    said = await why(bed, deploying.cora, number)
    assert said["sentence"].endswith(
        "it is started again in 2 s; it was started again once, the last time after this:"
        " exit code 1"
    )
    assert f"testbed deployment logs {number}" in said["todo"][0]
    await site.events(number, "starting", "connecting", "running", first=5)
    assert (await why(bed, deploying.cora, number))["todo"] == []


# --- follow ---------------------------------------------------------------------------------------


@asynccontextmanager
async def following(bed, who, number, query="", **headers):
    """The events of a deployment, one after the other, as (id, name, data)."""
    path = f"/deployments/{number}/follow{query}"
    stream = StreamOfEvents(bed, who | headers, path)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream.run(), name="follow")
        yield stream.queue
        task.cancel()


class StreamOfEvents:
    """What the app sends for one request, as it sends it: httpx's in-process door waits for all."""

    def __init__(self, bed, headers, path):
        self.queue = asyncio.Queue()
        self._app = bed.http._transport.app
        self._request = httpx.Request("GET", f"http://api/api/v1{path}", headers=headers)

    async def run(self):
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": url.path,
            "raw_path": url.raw_path,
            "query_string": url.query,
            "headers": [(k.lower(), v) for k, v in self._request.headers.raw],
            "client": ("127.0.0.1", 1),
            "server": ("api", 80),
            "root_path": "",
        }
        gone = asyncio.Event()
        sent = False

        async def receive():
            nonlocal sent
            if sent:
                await gone.wait()
            sent = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            for part in message.get("body", b"").decode().split("\n\n"):
                fields = dict(each.split(": ", 1) for each in part.splitlines() if each[0] != ":")
                if fields:
                    values = (fields.get("id"), fields["event"], fields["data"])
                    self.queue.put_nowait(values)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.queue.put_nowait(None)

        await self._app(scope, receive, send)


async def test_it_is_followed_from_its_state_to_its_end(bed, deploying, site):
    number = (await deploying.deployed())["id"]
    await site.events(number, "pulling", "starting")
    await site.report({"id": number, "lines": lines(1, 2, 3)})
    async with following(bed, deploying.cora, number, "?after=1") as events:
        first = [await events.get() for _ in range(3)]
        assert [each[1] for each in first] == ["state", "log", "log"]
        assert json.loads(first[0][2])["state"] == "starting"
        assert [json.loads(each[2])["text"] for each in first[1:]] == ["line 2", "line 3"]
        assert first[2][0] == "3.3"
        metrics = METRICS | {"at_ns": START_NS}
        await site.events(number, "connecting", first=3)
        await site.report({"id": number, "metrics": metrics, "lines": lines(4)})
        more = {(await events.get())[1] for _ in range(3)}
        assert more == {"state", "log", "metrics"}
        end = {"cause": "finished", "phase": "connecting", "reason": "it ended"}
        ended = {"state": "ended", "reason": "it ended", "end": end}
        await site.events(number, ended, first=4)
        (_, name, data) = await events.get()
        assert (name, json.loads(data)["state"]) == ("state", "ended")
        (last_id, name, data) = await events.get()
        assert (name, json.loads(data)["end"]["cause"]) == ("end", "finished")
        assert await events.get() is None
    async with following(bed, deploying.cora, number, **{"Last-Event-ID": "2.3"}) as events:
        rest = [await events.get() for _ in range(5)]
        assert [each[1] for each in rest] == ["state", "state", "log", "log", "metrics"]
        assert [json.loads(each[2]).get("number") for each in rest[:4]] == [4, 5, 3, 4]
        assert (await events.get())[:2] == (last_id, "end")


async def test_lines_that_are_kept_no_more_are_counted(bed, deploying, site):
    number = (await deploying.deployed())["id"]
    long = [line | {"text": "x" * 1_900} for line in lines(*range(1, 101))]
    for at in range(0, 100, 10):
        await site.report({"id": number, "lines": long[at : at + 10]})
    async with following(bed, deploying.cora, number, **{"Last-Event-ID": "1.9"}) as events:
        (_, name, data) = await events.get()
        (_, after, line) = await events.get()
        assert (name, after) == ("missed", "log")
        assert int(data) == json.loads(line)["number"] - 2 > 50


async def test_it_ends_within_a_second_of_the_right_to_it(bed, deploying, site, admin):
    number = (await deploying.deployed())["id"]
    assert site.bed is bed
    member = await bed.person("mia", "company", Role.ENGINEER)
    await bed.person("olga", "company", Role.OWNER)
    async with following(bed, member, number) as events:
        assert (await events.get())[1] == "state"
        mia = await bed.registry.principals.find("mia", bed.clock.now_ns())
        await bed.registry.principals.end(mia, by=None, now_ns=bed.clock.now_ns())
        began_s = asyncio.get_running_loop().time()
        (_, name, _) = await events.get()
        assert name == "ended"
        assert asyncio.get_running_loop().time() - began_s < 1 + LOOK_EVERY_S
        assert await events.get() is None
    for who, status in ((admin, 403), (member, 401)):
        answer = await bed.ask(who, "GET", f"/deployments/{number}/follow")
        assert answer.status_code == status


async def test_followers_are_bounded_and_ids_checked(bed, deploying, site):
    number = (await deploying.deployed())["id"]
    assert site.bed is bed
    wrong = deploying.cora | {"Last-Event-ID": "x"}
    answer = await bed.ask(wrong, "GET", f"/deployments/{number}/follow")
    assert_problem(answer, 422, "invalid", "the id of no event of a deployment")
    bed.api.quotas.most = QuotaSettings(connections=1)
    async with following(bed, deploying.cora, number) as events:
        await events.get()
        answer = await bed.ask(deploying.cora, "GET", f"/deployments/{number}/follow")
        assert_problem(answer, 429, "too_many", "1 live connections")
    await WallClock().sleep(0)
    answer = await bed.ask(deploying.cora, "GET", "/deployments/99/follow")
    assert_problem(answer, 404, "unknown", "no deployment 99")


@pytest.mark.parametrize("text", ["", "1", "1.", "a.b", "1.2.3", "-1.2", "9" * 20 + ".1"])
def test_an_id_of_no_event_is_refused(text):
    with pytest.raises(Exception, match="the id of no event"):
        FollowPosition.parse(text)
    assert FollowPosition.parse("17.4") == FollowPosition(17, 4)
    assert str(FollowPosition(17, 4)) == "17.4"
    assert deployment_events.BEAT_EVERY_S * NS_PER_S > 0
