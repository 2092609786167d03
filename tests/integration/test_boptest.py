"""A scenario served as BOPTEST does: controllers that know nothing of us close the loop."""

import asyncio
import runpy
import shutil

import httpx
import pytest

from broker.clock import WallClock
from broker.errors import Invalid, Taken
from testbed.scenario import boptest_server
from testbed.scenario.boptest_server import MOST_TESTS, BoptestTests
from testbed.scenario.stepped_scenario import SteppableScenario
from tests import sources
from tests.services import fmu_tank

EXAMPLES = sources.ROOT / "examples"
HEATER = EXAMPLES / "scenarios" / "heater-control.yaml"
RIG = EXAMPLES / "scenarios" / "rig.csv"
PLAYED = """scenario: played
duration: 20s
equipment:
  rig: {csv: rig.csv}
  press: {model: press, inputs: {heater: controller/heater/power}}
timeline:
  - {set: press/pressure, at: 10s, value: 200}
prototypes:
  controller: {command: "true", inputs: {press: press}, outputs: [heater]}
expectations:
  - {name: warm, signal: press/Platen Temperature, always: {above: 100}}
  - {signal: controller/heater/power, always: {below: 6}}
"""


def serving(file, seed=None):
    tests = BoptestTests(SteppableScenario(file, WallClock()), seed)
    return boptest_server.serving(tests, 0, WallClock())


def client(url):
    return httpx.AsyncClient(base_url=url, timeout=15)


async def test_a_controller_of_boptest_controls_the_press(capsys):
    example = runpy.run_path(str(EXAMPLES / "boptest_controller.py"))
    async with serving(HEATER) as url:
        await asyncio.to_thread(example["main"], url)
    printed = capsys.readouterr().out
    assert "after 900 s the platens are at 189" in printed or "at 190" in printed
    assert "the step to 190 Cel: passed: 1" in printed
    assert "the energy of the heater: passed: 1" in printed


async def test_equal_calls_have_equal_answers_and_tests_do_not_disturb_one_another():
    async with serving(HEATER, seed=3) as url, client(url) as api:
        answers = []
        for _ in range(2):
            chosen = await api.post("/testcases/heater-control/select")
            answers.append([f"/{{}}/{chosen.json()['testid']}", []])
        for power in (6, 0, 3):
            for path, values in answers:
                inputs = {"press/heater_u": power, "press/heater_activate": 1}
                answer = await api.post(path.format("advance"), json=inputs)
                values.append(answer.json()["payload"])
        assert answers[0][1] == answers[1][1]
        last = answers[0][1][-1]
        assert (last["time"], last["press/heater_u"], last["press/heater_activate"]) == (15, 3, 1)
        back = await api.post(answers[0][0].format("advance"), json={})
        assert back.json()["payload"]["press/heater_u"] == 2.7
        again = {"start_time": 10, "warmup_period": 5}
        begun = await api.put(answers[0][0].format("initialize"), json=again)
        assert begun.json()["payload"]["time"] == 10


async def test_points_steps_and_forecasts_have_the_shapes_of_boptest(tmp_path):
    shutil.copy(RIG, tmp_path / "rig.csv")
    (tmp_path / "played.yaml").write_text(PLAYED)
    async with serving(tmp_path / "played.yaml") as url, client(url) as api:
        measured = (await api.get("/measurements")).json()["payload"]
        assert measured["press/Platen Temperature"]["Unit"] == "Cel"
        inputs = (await api.get("/inputs")).json()["payload"]
        assert inputs["press/heater_u"]["Maximum"] == 6
        assert inputs["press/heater_activate"]["Unit"] is None
        points = (await api.get("/forecast_points")).json()["payload"]
        assert {"press/pressure", "rig/Pressure"} <= points.keys()
        assert "press/heater" not in points  # a controller's signal feeds it
        wanted = {"point_names": ["press/pressure", "rig/Current"], "horizon": 20, "interval": 10}
        known = (await api.put("/forecast", json=wanted)).json()["payload"]
        assert known["time"] == [0, 10, 20]
        assert known["press/pressure"] == [160, 200, 200]
        assert (await api.put("/step", data={"step": 4})).json()["payload"] == {"step": 4}
        assert (await api.get("/step")).json()["payload"] == 4
        form = {"start_time": 0, "warmup_period": 0}
        begun = (await api.put("/initialize", data=form)).json()
        assert (begun["status"], begun["payload"]["time"]) == (200, 0)
        assert begun["payload"]["rig/Current"] == known["rig/Current"][0]
        passed = [(await api.post("/advance")).json()["payload"] for _ in range(6)]
        assert [each.get("time") for each in passed] == [4, 8, 12, 16, 20, None]
        kpis = (await api.get("/kpi")).json()["payload"]
        assert kpis["warm: passed"] == 1
        assert all(name.startswith("warm: ") for name in kpis)
        assert (await api.get("/name")).json()["payload"] == {"name": "played"}
        assert (await api.get("/version")).json()["payload"]["version"]
        assert (await api.get("/status")).text == "Running"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        (
            "PUT",
            "/step",
            {"step": 7},
            400,
            "step is 7 s (a multiple of the scenario's quantum of 5",
        ),
        ("PUT", "/step", {"stp": 5}, 400, "there is no field 'stp'"),
        ("PUT", "/step", {"step": "long"}, 400, "step is 'long'"),
        ("PUT", "/initialize", {"start_time": 900}, 400, "the scenario ends at 900 s"),
        ("PUT", "/initialize", {"start_time": 0, "warmup_period": 60}, 400, "no time before it"),
        ("POST", "/advance", {"press/heatr_u": 1}, 404, "there is no input 'press/heatr_u'"),
        ("POST", "/advance", {"press/heater_activate": 1}, 400, "press/heater_u is missing"),
        ("POST", "/advance", {"press/heater_u": "hot"}, 400, "a finite number"),
        ("POST", "/advance", [1], 400, "the body is no JSON object"),
        (
            "PUT",
            "/forecast",
            {"point_names": ["x"], "horizon": 5, "interval": 1},
            404,
            "in advance",
        ),
        ("PUT", "/forecast", {"point_names": 3, "horizon": 5, "interval": 1}, 400, "no list"),
        ("PUT", "/forecast", {"point_names": [], "horizon": 1e9, "interval": 1}, 400, "the most"),
        ("GET", "/kpi/none", None, 404, "there is no test 'none'"),
        ("GET", "/nothing", None, 404, "there is no GET /nothing"),
        ("POST", "/testcases/other/select", None, 404, "there is heater-control"),
    ],
)
async def test_a_wrong_call_is_answered_with_a_sentence(method, path, body, status, words):
    async with serving(HEATER) as url, client(url) as api:
        answer = await api.request(method, path, json=body)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert words in answer.json()["message"]


async def test_tests_are_bounded_and_one_that_was_stopped_makes_room():
    async with serving(HEATER) as url, client(url) as api:
        select = "/testcases/heater-control/select"
        opened = [(await api.post(select)).json()["testid"] for _ in range(MOST_TESTS - 1)]
        refused = await api.post(select)
        assert (refused.status_code, "which are the most" in refused.text) == (429, True)
        assert (await api.put(f"/stop/{opened[0]}")).text == "OK"
        assert (await api.get(f"/status/{opened[0]}")).status_code == 404
        assert (await api.post(select)).status_code == 200
        await api.put("/stop")
        assert "PUT /initialize begins it again" in (await api.get("/kpi")).json()["message"]
        assert (await api.put("/initialize", json={"start_time": 0})).status_code == 200


async def test_a_page_in_a_browser_reaches_no_served_scenario():
    async with serving(HEATER) as url, client(url) as api:
        page = await api.post("/advance", headers={"Origin": "https://example.org"})
        assert (page.status_code, "browser" in page.text) == (403, True)
        rebound = await api.get("/name", headers={"Host": "example.org"})
        assert rebound.status_code == 400


async def test_a_port_that_is_taken_is_named():
    async with serving(HEATER) as url:
        port = int(url.rpartition(":")[2])
        tests = BoptestTests(SteppableScenario(HEATER, WallClock()), None)
        with pytest.raises(Taken, match=f"port {port} of 127.0.0.1"):
            async with boptest_server.serving(tests, port, WallClock()):
                pass


async def test_a_scenario_that_cannot_be_stepped_is_refused_at_once(tmp_path):
    file = tmp_path / "seeds.yaml"
    rig = "equipment: {rig: {model: pump-rig}}"
    file.write_text(f"scenario: seeds\nduration: 20s\nseeds: 1..3\n{rig}\n")
    with pytest.raises(Invalid, match="has 3 runs, and this is about one"):
        BoptestTests(SteppableScenario(file, WallClock()), None)


@pytest.mark.skipif(
    fmu_tank.COMPILER is None, reason="no C compiler; on Debian: apt install gcc libc6-dev"
)
async def test_an_fmu_is_controlled_in_a_process_of_its_own(tmp_path):
    fmu_tank.built(tmp_path)
    file = tmp_path / "tank.yaml"
    file.write_text("scenario: tank\nduration: 20s\nequipment: {tank: {fmu: tank.fmu}}\n")
    async with serving(file) as url, client(url) as api:
        (point, *_) = (n for n in (await api.get("/inputs")).json()["payload"] if n.endswith("_u"))
        levels = [(await api.post("/advance", json={point: 1})).json()["payload"] for _ in range(3)]
        assert [each["time"] for each in levels] == [1, 2, 3]
        assert len({each["tank/level"] for each in levels}) == 3
