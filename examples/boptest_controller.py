"""A proportional controller written for BOPTEST's HTTP interface, on a press of the testbed.

In one terminal:  testbed scenario serve examples/scenarios/heater-control.yaml --port 5000
In another:       python examples/boptest_controller.py http://127.0.0.1:5000

It knows nothing of the testbed.  With other names of points and another set point it controls a
test case of BOPTEST itself.
"""

import sys

import httpx

TEMPERATURE = "press/Platen Temperature"
HEATER = "press/heater"
SET_POINT_CEL = 190.0
USUAL_KW, KW_PER_K = 2.7, 0.8
STEP_S = 10


def power_kw(temperature_cel: float) -> float:
    """The power of the heater: more of it, the colder the platens are; 0 to 6 kW."""
    return min(max(USUAL_KW + KW_PER_K * (SET_POINT_CEL - temperature_cel), 0.0), 6.0)


def main(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as api:
        test_id = api.post(f"/testcases/{case_of(api)}/select").json()["testid"]
        api.put(f"/step/{test_id}", json={"step": STEP_S}).raise_for_status()
        start = {"start_time": 0, "warmup_period": 0}
        values = api.put(f"/initialize/{test_id}", json=start).json()["payload"]
        while True:
            inputs = {f"{HEATER}_u": power_kw(values[TEMPERATURE]), f"{HEATER}_activate": 1}
            answer = api.post(f"/advance/{test_id}", json=inputs).json()["payload"]
            if not answer:  # the scenario is over
                break
            values = answer
        print(f"after {values['time']:.0f} s the platens are at {values[TEMPERATURE]:.1f} Cel")
        for name, value in api.get(f"/kpi/{test_id}").json()["payload"].items():
            print(f"{name}: {value}")
        api.put(f"/stop/{test_id}")


def case_of(api: httpx.Client) -> str:
    """The name of the first test case."""
    return str(api.get("/testcases").json()[0]["testcaseid"])


if __name__ == "__main__":
    main(sys.argv[1])
