"""Ends child processes."""

import asyncio
from asyncio.subprocess import Process


async def terminate(child: Process, within_s: float) -> None:
    """Send SIGTERM to a child process, and SIGKILL if it has not ended after `within_s`."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(within_s):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
