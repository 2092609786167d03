"""A client of the testbed's API over HTTP, which raises the API's problems as our errors.

Gateways and prototypes register their streams with it; readers fetch specs and history.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from broker import messages, tls
from broker.batch import EquipmentKind
from broker.errors import (
    BedError,
    Corrupt,
    Forbidden,
    Invalid,
    Paused,
    Refused,
    Taken,
    Unavailable,
    Unknown,
)
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import MOST_SPECS, StreamSpec

ROOT = "/api/v1"
PAGE_ITEMS = 500
"""Most items of a listing that the API returns at once."""
PORTION_BYTES = 512 * 1024
"""Specs of at most so many bytes go in one request; the API takes 1 MiB."""

_BRANCH: Mapping[str, type[BedError]] = {
    kind.code: kind
    for kind in (Refused, Invalid, Unknown, Forbidden, Paused, Taken, Unavailable, Corrupt)
}


class Api:
    """A client of the API; its methods raise Refused with the API's sentence, or Unavailable."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """http: with the base URL, the credential and the time-outs set; see `connect`."""
        self._http = http

    async def request(self, method: str, path: str, **content: Any) -> Any:
        """Send a request and return the JSON of its response.

        path: below `/api/v1`.  content: `json`, `params` and others, as httpx takes them.
        """
        try:
            response = await self._http.request(method, ROOT + path, **content)
        except httpx.TransportError as exc:
            raise _away(self._http.base_url, exc) from exc
        if response.is_error:
            raise problem(response)
        return response.json() if response.content else None

    async def items(self, path: str, **params: Any) -> list[Any]:
        """Return all items of a listing, page by page."""
        items: list[Any] = []
        while True:
            page = await self.request("GET", path, params=params)
            items += page["items"]
            if page["next"] is None:
                return items
            params["cursor"] = page["next"]

    @asynccontextmanager
    async def stream(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Send a GET whose response is read as it arrives."""
        try:
            async with self._http.stream("GET", ROOT + path, **content) as response:
                if response.is_error:
                    await response.aread()
                    raise problem(response)
                yield response
        except httpx.TransportError as exc:
            raise _away(self._http.base_url, exc) from exc

    async def create_organisation(
        self, organisation: str, *, owner: str, kind: str = "partner"
    ) -> str:
        """Create an organisation with its first owner; returns the owner's credential."""
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
        """Register an equipment, or change it; site: its ISA-95 path, enterprise to line."""
        body = {"name": name, "kind": kind, "site": dict(site or {}), "description": description}
        await self.request("PUT", f"/equipment/{address}", json=body)

    async def register_spec(self, spec: StreamSpec) -> StreamSpec:
        """Propose a spec; returns it under the version that the registry gave it."""
        proposal = _proposal(spec)
        response = await self.request("POST", f"/streams/{spec.address}/specs", json=proposal)
        return spec.numbered(int(response["version"]))

    async def register_specs(self, specs: Sequence[StreamSpec]) -> list[StreamSpec]:
        """Propose several specs of one equipment; returns them under their versions.

        Specs that are registered unchanged are not proposed again: one listing finds them, while a
        proposal is a change of rights.  The others go in requests of some hundred each.
        """
        streams = await self.items("/streams", limit=PAGE_ITEMS)
        registered = [messages.spec_from_json(stream["spec"]) for stream in streams]
        newest = {spec.address: spec for spec in registered}
        changed = [
            spec
            for spec in specs
            if (known := newest.get(spec.address)) is None or spec.numbered(known.version) != known
        ]
        for portion, body in _requests(changed):
            path = f"/equipment/{portion[0].address.owner}/specs"
            headers = {"Content-Type": "application/json"}
            response = await self.request("POST", path, content=body, headers=headers)
            for spec, answer in zip(portion, response["items"], strict=True):
                newest[spec.address] = spec.numbered(int(answer["version"]))
        return [newest[spec.address] for spec in specs]

    async def spec(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """Fetch the spec of a stream, the newest if no version is given."""
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
    """Open an API client for `http://host:port` or `https://…`.

    credential: its whole text, empty for routes that need none.  ca: PEM file of the certificate
    authority to trust, None for those that the system trusts.  Raises Invalid if the file is not
    usable, or the URL has no TLS.
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


def problem(response: httpx.Response) -> BedError:
    """Return the error that a problem+json response (RFC 9457) describes."""
    try:
        body = response.json()
        code, detail, hint = str(body["code"]), str(body["detail"]), str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        code, detail, hint = "", f"{response.request.url} answered {response.status_code}", ""
    later = response.status_code == httpx.codes.TOO_MANY_REQUESTS
    if later or response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable(detail, hint=hint)
    return _BRANCH.get(code, Refused)(detail, hint=hint)


def _proposal(spec: StreamSpec) -> dict[str, Any]:
    """The body that proposes a spec: its JSON without what the path and the registry say."""
    proposal = messages.spec_to_json(spec)
    for set_by_registry in ("v", "stream", "version"):
        del proposal[set_by_registry]
    return proposal


def _requests(specs: Sequence[StreamSpec]) -> Iterator[tuple[list[StreamSpec], bytes]]:
    """The bodies that propose specs, each with its specs, none larger than the API takes."""
    portion: list[StreamSpec] = []
    proposals: list[bytes] = []
    size = 0
    for spec in specs:
        proposal = orjson.dumps(_proposal(spec) | {"stream": spec.address.stream})
        if portion and (len(portion) == MOST_SPECS or size + len(proposal) > PORTION_BYTES):
            yield portion, _joined(proposals)
            portion, proposals, size = [], [], 0
        portion.append(spec)
        proposals.append(proposal)
        size += len(proposal)
    if portion:
        yield portion, _joined(proposals)


def _joined(proposals: Sequence[bytes]) -> bytes:
    return b'{"streams":[' + b",".join(proposals) + b"]}"


def _away(url: httpx.URL, exc: httpx.TransportError) -> BedError:
    endpoint = tls.TlsEndpoint(f"the API at {url}", "TESTBED_API", "TESTBED_CA")
    if tls_error := tls.handshake_error(exc, endpoint):
        return tls_error
    closed = url.scheme == "http" and isinstance(exc, httpx.RemoteProtocolError | httpx.ReadError)
    return Unavailable(
        f"the API at {url} did not answer: {exc!r}",
        hint="is the server up? if its listener has TLS, write https:// into TESTBED_API"
        if closed
        else "is the server up? `testbed up` starts one",
    )
