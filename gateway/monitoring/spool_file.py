"""Watches over the spool's file: that its path leads to it, and the alarms where it did not."""

import asyncio

from broker.clock import DAY_S, Clock
from broker.errors import Unavailable
from gateway.pipeline.pipeline import Pipeline
from gateway.spool.spool import Spool

LOOK_S = 5.0
ALARM_S = DAY_S
"""Time that an alarm stands about a file that was set aside or written anew."""
FILE, CONTENT = "spool file", "spool content"
"""Subjects of alarms: about the file itself, and about batches that it lacks."""


async def watch(spool: Spool, pipeline: Pipeline, clock: Clock) -> None:
    """Keep the spool's file in its place, until cancelled; alarms say where it was not.

    Raises SpoolUnusable if the file cannot be read any more, Taken if another gateway uses it.
    """
    loop = asyncio.get_running_loop()
    began_s = until_s = loop.time()
    if (aside := spool.aside) is not None:
        pipeline.alarm(FILE, f"a damaged spool was set aside as {aside.path}: {aside.reason}")
        until_s += ALARM_S
    while True:
        await clock.sleep(LOOK_S)
        try:
            absence = await spool.keep_in_place()
        except Unavailable as exc:
            pipeline.alarm(FILE, str(exc))
            until_s = loop.time()
            continue
        if absence is not None:
            other = "" if spool.aside is None else f"; the other one is {spool.aside.path} now"
            pipeline.alarm(FILE, f"the spool's file {absence}, and was written anew{other}")
            until_s = loop.time() + ALARM_S
        elif loop.time() >= until_s:
            pipeline.alarm(FILE, None)
        if loop.time() - began_s >= ALARM_S:
            pipeline.alarm(CONTENT, None)
