"""Whether a caller may read a stream, and the reason where its own organisation knows of it."""

from broker.errors import NotGranted, Unknown
from broker.namespace import StreamAddress
from broker.rights import Entry, GrantState
from testbed_api.actions.caller import Caller
from testbed_api.domain import grants as domain_grants
from testbed_api.registry.registry import Registry


async def must_read(registry: Registry, caller: Caller, space: str, address: StreamAddress) -> None:
    """Raise a Refused that says why, unless the caller may read a stream.

    Paused: its owner has paused the grant.  NotGranted: a grant of the caller's organisation has
    ended or not begun, or its request is not answered, and the caller would read under it.
    Unknown: anything else, whether the stream exists or not.
    """
    try:
        caller.must_read(space, address)
    except Unknown:
        entry = Entry(space, address)
        if not caller.would_read(entry):
            raise
        grants = await registry.grants.of_stream(caller.organisation, entry)
        if not grants:
            raise
        grant, sentence = domain_grants.why_not(grants, caller.at_ns)
        again = "ask its owner" if grant.state is GrantState.ASKED else "`testbed grant ask` asks"
        hint = f"`testbed grant show {grant.id}` shows it; {again}"
        raise NotGranted(sentence, hint=hint) from None
