"""What only InfluxDB does: being away, refusing tokens and samples, and coming back."""

import httpx
import numpy as np
import pytest

from broker.batch import NUMPY, Series
from broker.errors import BedError, Forbidden, Invalid, Partial, Refused, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.stores import influxdb, narrowing
from testbed_api.stores.port import Block, Window
from tests.services import influxd as product


def spec(dtype=Dtype.FLOAT64):
    return StreamSpec(StreamAddress("factory", "pump-rig", "rig"), (Signal("a", dtype),))


def block(times, values, dtype=Dtype.FLOAT64):
    columns = Series(
        np.array(times, np.int64), np.array(values, NUMPY[dtype]), np.zeros(len(times), np.uint8)
    )
    return Block.of_series("live", spec(dtype), (("a", columns),))


async def times(store):
    window = Window("live", spec(), ("a",), 0, 2**62)
    return [time async for frame in store.read(window) for time in frame.time_ns.tolist()]


def opened(server, **other):
    given = {"token": server.token, "organisation": server.organisation, "bucket": "one"}
    return influxdb.open(server.url, **given | other)


async def test_a_store_that_is_away_is_unavailable():
    with pytest.raises(Unavailable, match="is influxd running there"):
        async with influxdb.open(
            "http://127.0.0.1:9", token="none", organisation="testbed", bucket="testbed"
        ):
            pass


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8086", "http://a:b"])
async def test_what_is_no_address_is_invalid(url):
    with pytest.raises(Invalid, match="http://host:port"):
        async with influxdb.open(url, token="none", organisation="testbed", bucket="testbed"):
            pass


async def test_a_wrong_token_is_forbidden(influxd):
    with pytest.raises(Forbidden, match="token"):
        async with opened(influxd, token="wrong"):
            pass


async def said(server, bucket, line):
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(
            "/api/v2/write",
            params={"org": server.organisation, "bucket": bucket},
            headers={"Authorization": f"Token {server.token}"},
            content=line,
        )
        answer.raise_for_status()


async def test_a_bucket_from_before_layouts_were_marked_is_taken_as_it_is(influxd):
    async with opened(influxd, bucket="unmarked"):
        pass
    async with httpx.AsyncClient(base_url=influxd.url) as http:
        await http.post(
            "/api/v2/delete",
            params={"org": influxd.organisation, "bucket": "unmarked"},
            headers={"Authorization": f"Token {influxd.token}"},
            json={"start": "1970-01-01T00:00:00Z", "stop": "2200-01-01T00:00:00Z"},
        )
    await said(influxd, "unmarked", b"factory/pump-rig/rig,space=live a=1.5 1")
    for _ in range(2):
        async with opened(influxd, bucket="unmarked") as store:
            assert await times(store) == [1]


async def test_a_bucket_of_a_newer_layout_is_refused(influxd):
    async with opened(influxd, bucket="newer") as store:
        await store.write([block([1], [1.5])])
    await said(influxd, "newer", b"layout version=99i")
    with pytest.raises(Refused, match="bucket newer has layout 99, this version reads 1"):
        async with opened(influxd, bucket="newer"):
            pass


async def test_an_organisation_that_is_not_there_is_unknown(influxd):
    with pytest.raises(Unknown, match=r"sees no organisation 'nobody'.*it sees testbed"):
        async with opened(influxd, organisation="nobody", bucket="of-nobody"):
            pass


async def test_its_bucket_is_found_among_many(influxd):
    for at in range(30):
        async with opened(influxd, bucket=f"many-{at}"):
            pass
    async with opened(influxd, bucket="many-25") as store:
        await store.ready()


async def test_what_it_will_never_take_is_named_and_the_rest_is_stored(influxd):
    async with opened(influxd, bucket="refusing") as store:
        await store.write([block([1], [0.5])])
        good = [block([time], [float(time)]) for time in range(2, 12)]
        wrong = block([20], [1], Dtype.INT64), block([2**63 - 1], [1.0])
        with pytest.raises(Partial) as told:
            await store.write([*good[:3], wrong[0], *good[3:], wrong[1]])
        (first, conflict), (second, outside) = told.value.rejected
        assert (first, second) == (3, 11)
        assert "field type conflict" in conflict
        assert "time outside range" in outside
        assert await times(store) == list(range(1, 12))


async def test_of_what_it_refuses_only_the_samples_themselves_are_left_out(influxd):
    async with opened(influxd, bucket="narrowing") as store:
        wrong = block([5, 2**63 - 1, 6, 7], [5.0, 0.0, 6.0, 7.0])
        refused = await narrowing.write(store, [block([1], [1.0]), wrong, block([9], [9.0])])
        ((at, part, reason),) = refused
        assert at == 1
        assert [series.time_ns.tolist() for _, series in part.series()] == [[2**63 - 1]]
        assert "time outside range" in reason
        assert await times(store) == [1, 5, 6, 7, 9]


async def test_what_was_stored_outlives_influxd_and_its_absence_is_told(tmp_path):
    with product.serve(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        async with opened(server) as store:
            await store.write([block([1, 2], [1.0, 2.0])])
            server.product.process.kill()
            server.product.process.wait()
            for attempt in (store.ready(), store.write([block([3], [3.0])]), times(store)):
                with pytest.raises(Unavailable, match="is influxd running there"):
                    await attempt
            with product.serve(tmp_path, port=port):
                await store.ready()
                assert await times(store) == [1, 2]
                await store.write([block([3], [3.0])])
                assert await times(store) == [1, 2, 3]


def errors_of(branch):
    return {branch}.union(*(errors_of(one) for one in branch.__subclasses__()))


@pytest.mark.parametrize("error", errors_of(httpx.RequestError) | {httpx.InvalidURL})
async def test_every_error_of_a_request_is_translated(error):
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as http:
        with pytest.raises(BedError), influxdb._translated(http):
            raise error("what happened")


def test_httpx_has_no_other_errors_of_requests():
    others = {
        one for one in vars(httpx).values() if isinstance(one, type) and issubclass(one, Exception)
    } - errors_of(httpx.RequestError)
    # branches of the above; statuses are looked at, not raised; no cookies; wrong use of streams
    assert {one.__name__ for one in others} == {
        *("HTTPError", "InvalidURL", "HTTPStatusError", "CookieConflict"),
        *("StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead", "RequestNotRead"),
    }
