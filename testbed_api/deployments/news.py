"""News of deployments inside one process: wakes those who wait for a change."""

import asyncio


class DeploymentNews:
    """Wakes whoever waits for a change of any deployment; other processes are not heard."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Wake all who wait."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, most_s: float) -> None:
        """Return at the next change, or after so many seconds."""
        changed = self._changed
        try:
            async with asyncio.timeout(most_s):
                await changed.wait()
        except TimeoutError:
            return
