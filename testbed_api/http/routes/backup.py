"""Routes: all tables and samples of the server, for a backup."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from broker.rights import Action, Entry
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import DumperDep, ReadsDep, RightsWatchDep
from testbed_api.http.schemas import OfStream, Space
from testbed_api.http.streaming import Streamed, begun

router = APIRouter(tags=["keeping"], prefix="/backup")

_SAMPLES = "/samples/{space}/{organisation}/{equipment}/{stream}"
LINES = "application/x-ndjson"


@router.get(
    "/tables",
    openapi_extra=asks(Action.OPERATE),
    summary="Registry and ledger, as of one moment",
    response_class=StreamingResponse,
    responses=openapi_examples.text('{"v":1,"schema":"0001","taken":"…"}\n…\n', LINES),
)
async def tables(
    dumper: DumperDep, rights_watch: RightsWatchDep, caller: CallerDep
) -> StreamingResponse:
    """Allowed to operators; `testbed backup` fetches this first, then the samples.

    Lines of JSON, the last with `end`. The hashes of credentials are in it.
    """
    caller.must(Action.OPERATE)
    right = rights_watch.watching(caller, Action.OPERATE, None)
    return Streamed(await begun(dumper.tables()), right=right, media_type=LINES)


@router.get(
    _SAMPLES,
    openapi_extra=asks(Action.OPERATE),
    summary="All samples of a stream in a space",
    response_class=StreamingResponse,
    responses=openapi_examples.text('{"spec":1}\n{"t0":"…","dt":[0],…}\n…\n', LINES),
)
async def samples(
    space: Space,
    address: OfStream,
    dumper: DumperDep,
    reads: ReadsDep,
    rights_watch: RightsWatchDep,
    caller: CallerDep,
) -> StreamingResponse:
    """Allowed to operators; the owner sees the read in the access report of its equipment.

    Lines of JSON, the last with `end`, the count and the fingerprint.
    """
    caller.must(Action.OPERATE)
    await reads.note(caller.id, Entry(space, address), "backup")
    right = rights_watch.watching(caller, Action.OPERATE, None)
    return Streamed(await begun(dumper.samples(space, address)), right=right, media_type=LINES)
