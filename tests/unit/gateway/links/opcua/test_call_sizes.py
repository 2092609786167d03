"""Requests of several nodes: halved until the server takes them, and remembered."""

from collections.abc import Sequence

import pytest
from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.links.opcua import call_sizes, refusal_codes
from gateway.links.opcua.call_sizes import ServerLimits, Service

CODES = ua.StatusCodes


class Server:
    """Takes so many rows in a request; rows in `bad` fail the whole request."""

    def __init__(self, most: int, code: int, bad: Sequence[int] = ()) -> None:
        self.sizes: list[int] = []
        self._most = most
        self._code = code
        self._bad = set(bad)

    async def answer(self, rows: Sequence[int]) -> list[int]:
        """Ten times each row."""
        self.sizes.append(len(rows))
        if len(rows) > self._most or self._bad & set(rows):
            raise UaStatusCodeError(self._code)
        return [10 * row for row in rows]


@pytest.mark.parametrize("code", sorted(refusal_codes.TOO_LARGE))
async def test_a_request_that_is_too_large_is_halved_and_the_size_remembered(code: int) -> None:
    limits, server, rows = ServerLimits(500), Server(100, code), list(range(150))
    answers = await call_sizes.call(limits, Service.READ, rows, server.answer)
    assert answers == [10 * row for row in rows]
    assert server.sizes == [150, 75, 75]
    assert (limits.size(Service.READ), limits.size(Service.MONITOR)) == (75, 500)
    assert limits.refused == {Service.READ}
    await call_sizes.call(limits, Service.READ, rows, server.answer)
    assert server.sizes[3:] == [75, 75]


async def test_a_row_for_which_all_is_refused_is_found_and_costs_itself_alone() -> None:
    limits, server = ServerLimits(500), Server(500, CODES.BadInternalError, bad=[37])
    answers = await call_sizes.call(limits, Service.MONITOR, list(range(100)), server.answer)
    assert [row for row, each in enumerate(answers) if isinstance(each, UaStatusCodeError)] == [37]
    assert [each for row, each in enumerate(answers) if row != 37] == [
        10 * row for row in range(100) if row != 37
    ]
    assert len(server.sizes) < 20
    assert limits.size(Service.MONITOR) == 500


async def test_a_service_that_refuses_everything_is_not_asked_for_each_row() -> None:
    server = Server(500, CODES.BadInternalError, bad=range(5_000))
    answers = await call_sizes.call(
        ServerLimits(500), Service.READ, list(range(5_000)), server.answer
    )
    assert all(isinstance(each, UaStatusCodeError) for each in answers)
    assert len(answers) == 5_000
    assert len(server.sizes) < 200
    unsupported = Server(500, CODES.BadServiceUnsupported, bad=range(100))
    await call_sizes.call(ServerLimits(500), Service.READ, list(range(100)), unsupported.answer)
    assert unsupported.sizes == [100]


async def test_one_row_that_is_too_large_is_its_own_refusal() -> None:
    server = Server(0, CODES.BadResponseTooLarge)
    (answer,) = await call_sizes.call(ServerLimits(500), Service.READ, [1], server.answer)
    assert answer.code == CODES.BadResponseTooLarge


@pytest.mark.parametrize("code", [CODES.BadSessionIdInvalid, CODES.BadConnectionClosed])
async def test_a_connection_that_ended_is_no_refusal_of_a_row(code: int) -> None:
    with pytest.raises(UaStatusCodeError):
        await call_sizes.call(ServerLimits(500), Service.READ, [1, 2], Server(0, code).answer)


async def test_a_server_that_is_too_slow_gets_half_next_time_and_more_as_it_answers() -> None:
    limits = ServerLimits(400)

    async def too_slow(_rows: Sequence[int]) -> list[int]:
        raise TimeoutError

    for size in (200, 100):
        with pytest.raises(TimeoutError):
            await call_sizes.call(limits, Service.READ, list(range(400)), too_slow)
        assert limits.size(Service.READ) == size
    server = Server(400, CODES.BadInternalError)
    await call_sizes.call(limits, Service.READ, list(range(400)), server.answer)
    assert server.sizes == [100, 200, 100]
    assert limits.refused == set()


async def test_an_answer_that_is_short_leaves_rows_without_one() -> None:
    async def short(rows: Sequence[int]) -> list[int]:
        return [7] * (len(rows) - 1)

    answers = await call_sizes.call(ServerLimits(2), Service.READ, [1, 2, 3, 4], short)
    assert answers == [7, None, 7, None]
