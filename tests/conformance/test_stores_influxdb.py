"""What only InfluxDB does: being away, refusing tokens and samples, and coming back."""

import contextlib
import gc
import sys

import httpx
import numpy as np
import pytest

from broker.aggregation import Aggregation
from broker.batch import NUMPY, Series
from broker.errors import BedError, Forbidden, Invalid, Partial, Refused, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.stores import bisect_write, influxdb, influxdb_http
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
    options = {"token": server.token, "organisation": server.organisation, "bucket": "base"}
    return influxdb.open(server.url, **options | other)


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


async def write_line(server, bucket, line):
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(
            "/api/v2/write",
            params={"org": server.organisation, "bucket": bucket},
            headers={"Authorization": f"Token {server.token}"},
            content=line,
        )
        answer.raise_for_status()


async def test_a_bucket_of_an_unknown_layout_is_refused(influxd):
    async with opened(influxd, bucket="unknown") as store:
        await store.write([block([1], [1.5])])
    await write_line(influxd, "unknown", b"layout version=99i")
    with pytest.raises(Refused, match="bucket unknown has layout 99, this version reads 1"):
        async with opened(influxd, bucket="unknown"):
            pass


def spec_of(organisation, dtype=Dtype.FLOAT64, stream="rig"):
    return StreamSpec(StreamAddress(organisation, "pump-rig", stream), (Signal("a", dtype),))


def written(spec, times, values, quality=0, space="live"):
    column = np.empty(len(times), NUMPY[spec.dtypes[0]])
    column[:] = values
    columns = Series(np.array(times, np.int64), column, np.full(len(times), quality, np.uint8))
    return Block.of_series(space, spec, (("a", columns),))


async def samples(store, spec, space="live"):
    window = Window(space, spec, ("a",), -(2**63) + 1, 2**63 - 1)
    return [
        (time, repr(value), code)
        async for frame in store.read(window)
        for time, value, code in zip(
            frame.time_ns.tolist(), frame.values.tolist(), frame.quality.tolist(), strict=True
        )
    ]


async def make_bucket(server, bucket):
    headers = {"Authorization": f"Token {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as http:
        [org] = (await http.get("/api/v2/orgs")).raise_for_status().json()["orgs"]
        body = {"orgID": org["id"], "name": bucket}
        (await http.post("/api/v2/buckets", json=body)).raise_for_status()


async def drop_bucket(server, bucket):
    headers = {"Authorization": f"Token {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as http:
        buckets = (await http.get("/api/v2/buckets", params={"name": bucket})).json()["buckets"]
        (await http.delete(f"/api/v2/buckets/{buckets[0]['id']}")).raise_for_status()


async def test_dropping_a_bucket_removes_one_organisation_and_nothing_else(influxd):
    every = [spec_of(name) for name in ("factory", "factory-b", "company")]
    async with opened(influxd, bucket="dropping") as store:
        await store.write([written(spec, [1, 2], [1.0, 2.0]) for spec in every])
        await drop_bucket(influxd, "dropping-factory")
        for opener in (contextlib.nullcontext(store), opened(influxd, bucket="dropping")):
            async with opener as reopened:
                times_read = [
                    [time for time, _, _ in await samples(reopened, spec)] for spec in every
                ]
                assert times_read == [[], [1, 2], [1, 2]]
                assert [
                    f async for f in reopened.thin(Window("live", every[0], ("a",), 0, 9), 4)
                ] == []
                await reopened.delete("live", every[0].address, 0, 10)
        await store.write([written(spec, [3], [3.0]) for spec in every])
        times_read = [[time for time, _, _ in await samples(store, spec)] for spec in every]
        assert times_read == [[3], [1, 2, 3], [1, 2, 3]]


async def test_no_organisations_name_leads_into_another_testbed(influxd):
    async with (
        opened(influxd, bucket="lab") as lab,
        opened(influxd, bucket="lab-two") as other,
    ):
        await other.write([written(spec_of("a"), [1], [1.0])])
        for spec in (spec_of("two"), spec_of("two-a")):
            with pytest.raises(Refused, match="not of the testbed in lab"):
                await samples(lab, spec)
            with pytest.raises(Refused, match="not of the testbed in lab"):
                await lab.delete("live", spec.address, 0, 10)
            with pytest.raises(Partial, match="not of the testbed in lab") as error:
                await lab.write([written(spec, [1], [2.0]), written(spec_of("b"), [1], [2.0])])
            assert [at for at, _ in error.value.later] == [0]
        assert [value for _, value, _ in await samples(other, spec_of("a"))] == ["1.0"]
        assert [value for _, value, _ in await samples(lab, spec_of("b"))] == ["2.0"]
    with pytest.raises(Refused, match="an organisation's of the testbed in lab-two"):
        async with opened(influxd, bucket="lab-two-a"):
            pass


async def limited_token(server, bucket):
    """A token that may read and write one bucket and nothing else."""
    headers = {"Authorization": f"Token {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as http:
        [org] = (await http.get("/api/v2/orgs")).json()["orgs"]
        buckets = (await http.get("/api/v2/buckets", params={"name": bucket})).json()["buckets"]
        resource = {"type": "buckets", "id": buckets[0]["id"], "orgID": org["id"]}
        rights = [{"action": action, "resource": resource} for action in ("read", "write")]
        body = {"orgID": org["id"], "permissions": rights}
        answer = await http.post("/api/v2/authorizations", json=body)
        return answer.raise_for_status().json()["token"]


async def test_a_token_that_may_not_make_buckets_is_told_what_to_do(influxd):
    await make_bucket(influxd, "limited")
    token = await limited_token(influxd, "limited")
    async with opened(influxd, bucket="limited", token=token) as store:
        with pytest.raises(Partial, match="there is no bucket limited-factory") as error:
            await store.write([block([1], [1.0])])
        [(at, reason)] = error.value.later
        assert at == 0
        assert "read and write all buckets" in reason
        assert await times(store) == []


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
        with pytest.raises(Partial) as error:
            await store.write([*good[:3], wrong[0], *good[3:], wrong[1]])
        (first, conflict), (second, outside) = error.value.rejected
        assert (first, second) == (3, 11)
        assert "field type conflict" in conflict
        assert "time outside range" in outside
        assert await times(store) == list(range(1, 12))


async def test_of_what_it_refuses_only_the_samples_themselves_are_left_out(influxd):
    async with opened(influxd, bucket="narrowing") as store:
        wrong = block([5, 2**63 - 1, 6, 7], [5.0, 0.0, 6.0, 7.0])
        refused = await bisect_write.write(store, [block([1], [1.0]), wrong, block([9], [9.0])])
        ((at, part, reason),) = refused
        assert at == 1
        assert [series.time_ns.tolist() for _, series in part.series()] == [[2**63 - 1]]
        assert "time outside range" in reason
        assert await times(store) == [1, 5, 6, 7, 9]


@pytest.mark.influxd
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


async def test_what_was_written_is_let_go_before_the_collector_comes(influxd):
    body = b"factory/pump-rig/rig,space=live a=1.5 1"
    async with opened(influxd) as store:
        await store.write([block([1], [1.0])])
        bucket = await store._store._buckets.get_or_create("factory")
        held = sys.getrefcount(body)
        gc.disable()
        try:
            await store._store._client.write(bucket, body)
            assert sys.getrefcount(body) == held
        finally:
            gc.enable()


def errors_of(branch):
    return {branch}.union(*(errors_of(subclass) for subclass in branch.__subclasses__()))


REQUEST_ERRORS = errors_of(httpx.RequestError) | {httpx.InvalidURL}


@pytest.mark.parametrize("error", sorted(REQUEST_ERRORS, key=lambda error: error.__name__))
async def test_every_error_of_a_request_is_translated(error):
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as http:
        with pytest.raises(BedError), influxdb_http.translated_errors(http):
            raise error("what happened")


def test_httpx_has_no_other_errors_of_requests():
    others = {
        error_class
        for error_class in vars(httpx).values()
        if isinstance(error_class, type) and issubclass(error_class, Exception)
    } - errors_of(httpx.RequestError)
    # branches of the above; statuses are looked at, not raised; no cookies; wrong use of streams
    assert {error_class.__name__ for error_class in others} == {
        *("HTTPError", "InvalidURL", "HTTPStatusError", "CookieConflict"),
        *("StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead", "RequestNotRead"),
    }


async def test_a_mean_whose_sum_is_beyond_float64_is_refused_in_a_sentence(influxd):
    async with opened(influxd, bucket="beyond") as store:
        await store.write([block([0, 1, 2 * 10**9], [1.7e308, 1.7e308, 1.0])])
        window = Window("live", spec(), ("a",), 0, 2**62)
        with pytest.raises(Invalid, match="that sum is beyond float64"):
            [each async for each in store.aggregate(window, Aggregation.parse("1s", "mean"))]
        frames = [each async for each in store.aggregate(window, Aggregation.parse("1s", "max"))]
        assert [value for frame in frames for value in frame.values.tolist()] == [1.7e308, 1.0]
