"""A prototype that controls the temperature of a press: a PI controller whose output is limited."""

from testbed_sdk import Signal, connect, run

SET_POINT_CEL = 190.0
USUAL_KW = 2.7
MOST_KW = 6.0
KW_PER_K = 0.8
INTEGRAL_S = 200.0


async def main() -> None:
    async with connect() as testbed:
        press = testbed.input("press")
        await press.open()
        heater = await testbed.output("heater", [Signal("power", unit="kW")])
        integral_kw, last_ns = 0.0, None
        async for batch in press:
            temperature = batch["Platen Temperature"]
            time_ns = int(temperature.time_ns[-1])
            error_k = SET_POINT_CEL - float(temperature.values.mean())
            wanted_kw = USUAL_KW + KW_PER_K * error_k + integral_kw
            power_kw = min(max(wanted_kw, 0.0), MOST_KW)
            if power_kw == wanted_kw and last_ns is not None:  # it does not wind up at a limit
                integral_kw += KW_PER_K * error_k * (time_ns - last_ns) / 1e9 / INTEGRAL_S
            last_ns = time_ns
            await heater.publish([time_ns], {"power": [power_kw]})


run(main())
