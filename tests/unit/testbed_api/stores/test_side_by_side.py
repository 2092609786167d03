"""A slow write beside quick ones is given up; a store that is slow for all is waited for."""

import asyncio

from testbed_api.stores import side_by_side
from testbed_api.stores.side_by_side import SideWrite


def write(due_s: float, *, until: asyncio.Event | None = None, stores: bool = True) -> SideWrite:
    async def run() -> bool:
        if until is not None:
            await until.wait()
        return stores

    return SideWrite(run, due_s)


async def test_what_is_slow_while_others_are_stored_is_given_up() -> None:
    never = asyncio.Event()
    writes = {"slow": write(0.01, until=never), "quick": write(1.0), "later": write(1.0)}
    given_up = await side_by_side.write_all(writes, parallel=2)
    assert given_up.keys() == {"slow"}
    assert "longer than 0.0 s" in str(given_up["slow"])


async def test_what_begins_later_has_its_own_time() -> None:
    never = asyncio.Event()
    writes = {"quick": write(1.0), "slow": write(0.01, until=never)}
    assert (await side_by_side.write_all(writes, parallel=1)).keys() == {"slow"}


async def test_a_store_that_is_slow_for_all_is_waited_for() -> None:
    stored = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, stored.set)
    writes = {name: write(0.0, until=stored) for name in "ab"}
    assert not await side_by_side.write_all(writes, parallel=3)


async def test_a_failure_does_not_show_that_the_store_is_quick() -> None:
    stored = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, stored.set)
    writes = {"refused": write(1.0, stores=False), "slow": write(0.0, until=stored)}
    assert not await side_by_side.write_all(writes, parallel=3)
