"""News of deployments inside one process: wakes those who wait for a change."""

import asyncio


class DeploymentNews:
    """Wakes whoever waits for a change of any deployment; other processes are not heard."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.is_over = False
        """Whether nobody is to wait any more, as the server ends."""

    def end(self) -> None:
        """Wake all who wait, for the last time."""
        self.is_over = True
        self.tell()

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
