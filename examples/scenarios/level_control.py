"""A prototype that holds the level of a tank by its outlet valve: a PI controller with limits."""

from testbed_sdk import Signal, connect, run

SET_POINT_M = 1.5
USUAL_OPENING = 0.4
OPENING_PER_M = 2.0
INTEGRAL_S = 30.0


async def main() -> None:
    async with connect() as testbed:
        tank = testbed.input("tank")
        await tank.open()
        valve = await testbed.output("valve", [Signal("opening", low=0.0, high=1.0)])
        integral, last_ns = 0.0, None
        async for batch in tank:
            level = batch["level"]
            time_ns = int(level.time_ns[-1])
            too_high_m = float(level.values[-1]) - SET_POINT_M
            wanted = USUAL_OPENING + OPENING_PER_M * too_high_m + integral
            opening = min(max(wanted, 0.0), 1.0)
            if opening == wanted and last_ns is not None:  # it does not wind up at a limit
                passed_s = (time_ns - last_ns) / 1e9
                integral += OPENING_PER_M * too_high_m * passed_s / INTEGRAL_S
            last_ns = time_ns
            await valve.publish([time_ns], {"opening": [opening]})


run(main())
