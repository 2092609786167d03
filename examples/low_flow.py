"""A prototype in ten lines that answers: an alarm for each row whose flow is below a limit."""

from testbed_sdk import Dtype, Signal, connect, run

LIMIT = 29.5  # L/min


async def main() -> None:
    async with connect() as testbed:
        score = await testbed.output("score", [Signal("anomaly", Dtype.BOOL)])
        async for batch in testbed.input("rig"):
            flow = batch["Volume Flow RateRMS"]
            alarms = flow.values < LIMIT
            if len(alarms):
                await score.publish(flow.time_ns, {"anomaly": alarms})
                print(len(alarms), "rows,", alarms.sum(), "alarms", flush=True)


run(main())
