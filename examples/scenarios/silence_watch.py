"""A prototype that notices silence: no rows for some seconds of the run's time."""

from testbed_sdk import Dtype, Signal, connect, run

PATIENCE_S = 5.0


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        link = await testbed.output("link", [Signal("silent", Dtype.BOOL)])
        batches = aiter(rig)
        while True:
            silent = False
            try:
                async with testbed.timeout(PATIENCE_S):
                    await anext(batches)
            except TimeoutError:
                silent = True
            except StopAsyncIteration:
                return
            await link.publish([testbed.now_ns()], {"silent": [silent]})


run(main())
