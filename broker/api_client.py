"""The way to the testbed's API over HTTP, with its problems read back into the error tree.

Gateways and prototypes register what they publish here; readers fetch specs and history.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from broker import messages, tls
from broker.batch import EquipmentKind
from broker.errors import (
    BedError,
    Corrupt,
    Forbidden,
    Invalid,
    Refused,
    Taken,
    Unavailable,
    Unknown,
)
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec

ROOT = "/api/v1"
A_PAGE = 500
"""Rows of a listing that the API gives at once, at most."""

_BRANCH: Mapping[str, type[BedError]] = {
    kind.code: kind for kind in (Refused, Invalid, Unknown, Forbidden, Taken, Unavailable, Corrupt)
}


class Api:
    """One client of the API; every method raises a Refused with the API's own sentence, or
    Unavailable.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        """http: with the base URL, the credential and the time-outs set; see `connect`."""
        self._http = http

    async def request(self, method: str, path: str, **content: Any) -> Any:
        """The JSON answer to one request; path: below the root; content: `json` or `params`."""
        try:
            answer = await self._http.request(method, ROOT + path, **content)
        except httpx.TransportError as exc:
            raise _away(self._http.base_url, exc) from exc
        if answer.is_error:
            raise problem(answer)
        return answer.json() if answer.content else None

    async def items(self, path: str, **params: Any) -> list[Any]:
        """All items of a listing that comes in pages."""
        found: list[Any] = []
        while True:
            page = await self.request("GET", path, params=params)
            found += page["items"]
            if page["next"] is None:
                return found
            params["cursor"] = page["next"]

    @asynccontextmanager
    async def stream(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """One GET whose answer is read as it comes."""
        try:
            async with self._http.stream("GET", ROOT + path, **content) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise problem(answer)
                yield answer
        except httpx.TransportError as exc:
            raise _away(self._http.base_url, exc) from exc

    async def create_organisation(
        self, organisation: str, *, owner: str, kind: str = "partner"
    ) -> str:
        """Make an organisation with its first owner, whose credential comes back, this once."""
        body = {"id": organisation, "name": organisation, "kind": kind, "owner": owner}
        return str((await self.request("POST", "/organisations", json=body))["credential"])

    async def register_equipment(
        self,
        address: EquipmentAddress,
        *,
        name: str,
        kind: EquipmentKind,
        site: Mapping[str, str] | None = None,
        description: str = "",
    ) -> None:
        """Register or renew an equipment; site: its ISA-95 path, enterprise to line."""
        body = {"name": name, "kind": kind, "site": dict(site or {}), "description": description}
        await self.request("PUT", f"/equipment/{address}", json=body)

    async def register_spec(self, spec: StreamSpec) -> StreamSpec:
        """Propose a spec; the same comes back under the version that the registry gave it."""
        proposal = messages.spec_to_json(spec)
        for given_by_the_registry in ("v", "stream", "version"):
            del proposal[given_by_the_registry]
        answer = await self.request("POST", f"/streams/{spec.address}/specs", json=proposal)
        return spec.numbered(int(answer["version"]))

    async def register_specs(self, specs: Sequence[StreamSpec]) -> list[StreamSpec]:
        """Propose several.  Those that are registered as they are cost one look at all that the
        credential's holder sees: each proposal is a change of rights, which takes the API longer.
        """
        told = await self.items("/streams", limit=A_PAGE)
        newest = {
            one.address: one for one in (messages.spec_from_json(each["spec"]) for each in told)
        }
        made = []
        for spec in specs:
            known = newest.get(spec.address)
            if known is None or spec.numbered(known.version) != known:
                known = await self.register_spec(spec)
            made.append(known)
        return made

    async def spec(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """The spec of a stream, the newest where no version is asked for."""
        if version is None:
            return messages.spec_from_json(
                (await self.request("GET", f"/streams/{address}"))["spec"]
            )
        return messages.spec_from_json(
            await self.request("GET", f"/streams/{address}/specs/{version}")
        )


@asynccontextmanager
async def connect(
    url: str, credential: str, *, ca: Path | None = None, timeout_s: float = 10.0
) -> AsyncIterator[Api]:
    """An API client for `http://host:port` or `https://…`, with a credential's whole text.

    credential: empty for what is open to everybody.  ca: whose certificates are believed, None for
    those that the system believes.  Raises Invalid if that is no such file, or would not be asked
    for.
    """
    if ca is not None and not url.startswith("https:"):
        raise Invalid(
            f"TESTBED_CA is set, and {url} would be reached without TLS",
            hint="write https:// into TESTBED_API, or take TESTBED_CA out",
        )
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    trust = await asyncio.to_thread(tls.client_context, ca)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=timeout_s, verify=trust
    ) as http:
        yield Api(http)


def problem(answer: httpx.Response) -> BedError:
    """The error that a problem+json (RFC 9457) describes."""
    try:
        told = answer.json()
        code, detail, hint = str(told["code"]), str(told["detail"]), str(told.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        code, detail, hint = "", f"{answer.request.url} answered {answer.status_code}", ""
    later = answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    if later or answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable(detail, hint=hint)
    return _BRANCH.get(code, Refused)(detail, hint=hint)


def _away(url: httpx.URL, exc: httpx.TransportError) -> BedError:
    asked = tls.TlsEndpoint(f"the API at {url}", "TESTBED_API", "TESTBED_CA")
    if told := tls.handshake_error(exc, asked):
        return told
    closed = url.scheme == "http" and isinstance(exc, httpx.RemoteProtocolError | httpx.ReadError)
    return Unavailable(
        f"the API at {url} did not answer: {exc!r}",
        hint="is the server up? if its door has TLS, write https:// into TESTBED_API"
        if closed
        else "is the server up? `testbed up` starts one",
    )
