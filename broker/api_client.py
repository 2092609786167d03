"""A client of the testbed's API over HTTP, which raises the API's problems as our errors.

Gateways and prototypes register their streams with it; readers fetch specs and history.  Answers
are the models of `broker.responses`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import ValidationError

from broker import messages, tls
from broker.clock import WallClock
from broker.credential import Credential
from broker.errors import (
    BedError,
    Corrupt,
    Forbidden,
    Invalid,
    NotGranted,
    Paused,
    Refused,
    Taken,
    Unavailable,
    Unknown,
)
from broker.http_library import httpx
from broker.namespace import EquipmentAddress, EquipmentKind, StreamAddress
from broker.pydantic_checks import first_sentence
from broker.responses.base import IDEMPOTENCY_KEY, ApiResponse, PageResponse
from broker.responses.enrolment import GatewayProcessesResponse, GatewayProcessResponse
from broker.responses.equipment import (
    HeldPage,
    HeldResponse,
    SpecResponse,
    SpecsResponse,
    StreamPage,
    StreamResponse,
)
from broker.responses.organisations import NewOrganisationResponse
from broker.streams import MOST_SPECS, StreamSpec

ROOT = "/api/v1"
PAGE_ITEMS = 500
"""Items of a listing that are asked for at once; every route returns so many."""
_SCHEMES = ("http", "https")
HIGHEST_PORT = 65_535
AGAIN_AFTER_S = (0.5, 1.0, 2.0, 4.0)
"""Pauses before a POST whose answer did not come is sent again, with the same key."""
AGAIN_WITHIN_S = 10.0
"""No further try begins so long after the first one."""
PORTION_BYTES = 512 * 1024
"""Specs of at most so many bytes go in one request; the API takes 1 MiB."""


class CredentialRefused(Forbidden):
    """The API does not know the credential, or accepts it no more."""

    code = "unauthenticated"


_KINDS = (
    *(Refused, Invalid, Unknown, Forbidden, Paused, NotGranted, Taken, Unavailable, Corrupt),
    CredentialRefused,
)
_BRANCH: Mapping[str, type[BedError]] = {kind.code: kind for kind in _KINDS}

Answer = TypeVar("Answer", bound=ApiResponse)
Page = TypeVar("Page", bound=PageResponse)
Params = Mapping[str, Any]
"""Parameters of a query; those that are None are left out."""


_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
)
"""Errors of a request of which nothing reached the API."""


class SettingNames(NamedTuple):
    """Names of the settings that an error sentence tells its reader to correct.

    api: of the URL.  ca: of the file of the certificate authority.
    """

    api: str = "TESTBED_API"
    ca: str = "TESTBED_CA"


_VARIABLES = SettingNames()
OWN_SERVER = SettingNames("", "")
"""For a server that a command has started for its own run: no setting leads to it."""


class Api:
    """A client of the API; its methods raise Refused with the API's sentence, or Unavailable."""

    def __init__(self, http: httpx.AsyncClient, names: SettingNames = _VARIABLES) -> None:
        """http: with the base URL, the credential and the time-outs set; see `connect`."""
        self._http = http
        self._names = names

    async def request(self, method: str, path: str, **content: Any) -> Any:
        """Send a request and return the JSON of its response.

        path: below `/api/v1`.  content: `json`, `params` and others, as httpx takes them.  A POST
        whose answer is lost on the way is sent again for some seconds, and carried out once.
        """
        try:
            if method == "POST" and "Authorization" in self._http.headers:
                response = await self._post(path, content)
            else:
                response = await self._http.request(method, ROOT + path, **content)
        except httpx.TransportError as exc:
            raise _away(self._http, exc, self._names) from exc
        except UnicodeEncodeError as exc:
            raise Invalid("a text of this request is no Unicode", hint="type it again") from exc
        if response.is_error:
            raise problem(response)
        try:
            return response.json() if response.content else None
        except ValueError as exc:
            raise problem(response) from exc

    async def _post(self, path: str, content: Params) -> httpx.Response:
        """Send a POST with a key of its own, again while its answer is lost on the way.

        Raises Unavailable if no answer came in the end, so that it may have been carried out.
        """
        loop, pauses = asyncio.get_running_loop(), iter(AGAIN_AFTER_S)
        began_s, was_sent = loop.time(), False
        headers = {**content.get("headers", {}), IDEMPOTENCY_KEY: secrets.token_hex(16)}
        while True:
            try:
                return await self._http.post(ROOT + path, **{**content, "headers": headers})
            except httpx.TransportError as exc:
                was_sent = was_sent or not isinstance(exc, _NOT_SENT)
                pause_s = next(pauses, None)
                if not was_sent:
                    raise
                if pause_s is None or loop.time() - began_s > AGAIN_WITHIN_S:
                    raise _unanswered(self._http, exc, self._names) from exc
            await WallClock().sleep(pause_s)

    async def send(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        json: object = None,
        *,
        params: Params | None = None,
    ) -> Answer:
        """Send a request with a JSON body; raises Corrupt if the response is no such answer."""
        response = await self.request(method, path, json=json, params=_given(params))
        return _read(answer, response, path)

    async def get(self, path: str, answer: type[Answer], params: Params | None = None) -> Answer:
        """Fetch an answer; raises Corrupt if the response is no such answer."""
        return _read(answer, await self.request("GET", path, params=_given(params)), path)

    async def pages(
        self,
        path: str,
        page: type[Page],
        params: Params | None = None,
        *,
        most: int | None = None,
        page_items: int = PAGE_ITEMS,
    ) -> AsyncIterator[Page]:
        """Fetch a listing page by page.

        most: number of items after which it ends, None for all.
        """
        query, left = _given(params), most
        while left is None or left > 0:
            query["limit"] = page_items if left is None else min(page_items, left)
            fetched = await self.get(path, page, query)
            yield fetched
            if fetched.next is None:
                return
            query["cursor"] = fetched.next
            left = None if left is None else left - len(fetched.items)

    async def whole(
        self,
        path: str,
        page: type[Page],
        params: Params | None = None,
        *,
        most: int | None = None,
        page_items: int = PAGE_ITEMS,
    ) -> Page:
        """Fetch a listing as one page with the items of all; see `pages`."""
        pages = self.pages(path, page, params, most=most, page_items=page_items)
        fetched = [each async for each in pages]
        items = [item for each in fetched for item in each.items]
        return fetched[-1].model_copy(update={"items": items})

    @asynccontextmanager
    async def stream(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Send a GET whose response is read as it arrives; raises Unavailable if it breaks off."""
        has_begun = False
        try:
            async with self._http.stream("GET", ROOT + path, **content) as response:
                if response.is_error:
                    await response.aread()
                    raise problem(response)
                has_begun = True
                yield response
        except httpx.TransportError as exc:
            if has_begun:
                raise Unavailable(
                    f"the answer of the API at {self._http.base_url} broke off: {reason_of(exc)}",
                    hint="ask again: if you may have it no more, the API says so then",
                ) from exc
            raise _away(self._http, exc, self._names) from exc

    async def create_organisation(self, organisation: str, *, owner: str, kind: str) -> str:
        """Create an organisation with its first owner; returns the owner's credential.

        kind: partner, company, intermediary or agency.
        """
        body = {"id": organisation, "name": organisation, "kind": kind, "owner": owner}
        created = await self.send("POST", "/organisations", NewOrganisationResponse, body)
        return created.credential

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
        path = f"/streams/{spec.address}/specs"
        return spec.numbered((await self.send("POST", path, SpecResponse, proposal)).version)

    async def register_specs(self, specs: Sequence[StreamSpec]) -> list[StreamSpec]:
        """Propose several specs of one equipment; returns them under their versions.

        Specs that are registered unchanged are not proposed again: one listing finds them, while a
        proposal is a change of rights.  The others go in requests of some hundred each.
        """
        listed = await self.whole("/streams", StreamPage)
        registered = [stream.spec.spec() for stream in listed.items]
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
            answers = _read(SpecsResponse, response, path).items
            for spec, answer in zip(portion, answers, strict=True):
                newest[spec.address] = spec.numbered(answer.version)
        return [newest[spec.address] for spec in specs]

    async def held(self, equipment: EquipmentAddress, space: str) -> list[HeldResponse]:
        """Fetch what the ledger holds of an equipment's streams in a space."""
        path = f"/equipment/{equipment}/held"
        return list((await self.whole(path, HeldPage, {"space": space})).items)

    async def gateway_processes(self, equipment: EquipmentAddress) -> list[GatewayProcessResponse]:
        """Fetch the processes that are connected as gateways of an equipment."""
        path = f"/equipment/{equipment}/gateway/processes"
        return (await self.get(path, GatewayProcessesResponse)).items

    async def spec(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """Fetch the spec of a stream, the newest if no version is given."""
        path = f"/streams/{address}"
        if version is None:
            return (await self.get(path, StreamResponse)).spec.spec()
        return (await self.get(f"{path}/specs/{version}", SpecResponse)).spec()


@asynccontextmanager
async def connect(
    url: str,
    credential: str,
    *,
    ca: Path | None = None,
    timeout_s: float = 10.0,
    names: SettingNames = _VARIABLES,
) -> AsyncIterator[Api]:
    """Open an API client for `http://host:port` or `https://…`.

    credential: its whole text, empty for routes that need none.  ca: PEM file of the certificate
    authority to trust, None for those that the system trusts.  names: for the sentences of errors.
    Raises Invalid if the credential is not of the form of one, the file is not usable, or the URL
    has no TLS or is none.
    """
    if credential:
        Credential.parse(credential)  # httpx would repeat a header that it refuses in its error
    if ca is not None and not url.startswith("https:"):
        raise Invalid(
            f"{names.ca} is set, and {url} would be reached without TLS",
            hint=f"write https:// into {names.api}, or take {names.ca} out",
        )
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    trust = await asyncio.to_thread(tls.context_for, url, ca, setting=names.ca)
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, verify=trust)
    except httpx.InvalidURL:
        raise Invalid(f"{names.api} is no URL", hint="write http://host:port") from None
    _check_url(http.base_url, names)
    async with http:
        yield Api(http, names)


def _check_url(url: httpx.URL, names: SettingNames) -> None:
    """Raise Invalid for a URL that is not an API's, or that holds a name or a password."""
    if url.userinfo:
        raise Invalid(
            "who asks does not stand in the address of the API",
            hint=f"take the name and password out of {names.api}, and set TESTBED_CREDENTIAL",
        )
    if url.scheme not in _SCHEMES or not url.host or (url.port or 0) > HIGHEST_PORT:
        raise Invalid(
            f"{names.api} is not the address of an API: {str(url).rstrip('/')[:100]!r}",
            hint="write http://host:port, or https://host:port with TLS",
        )


def problem(response: httpx.Response) -> BedError:
    """Return the error that a problem+json response (RFC 9457) describes.

    Unavailable for another answer: a proxy gives it while the API behind it is away.
    """
    try:
        body = response.json()
        code, detail, hint = str(body["code"]), str(body["detail"]), str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            f"{response.request.url} answered {response.status_code}, and not as the API does",
            hint="is TESTBED_API right? a proxy before the API answers so while the API is away",
        )
    later = response.status_code == httpx.codes.TOO_MANY_REQUESTS
    if later or response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable(detail, hint=hint)
    return _BRANCH.get(code, Refused)(detail, hint=hint)


def _read(answer: type[Answer], document: object, path: str) -> Answer:
    """The answer in a response's JSON; raises Corrupt."""
    try:
        return answer.model_validate(document)
    except ValidationError as exc:
        raise Corrupt(
            f"the API's answer to {path} is no {answer.__name__}: {first_sentence(exc)}",
            hint="is the server of another version than this program?",
        ) from exc


def _given(params: Params | None) -> dict[str, Any]:
    """A copy of the parameters without those that are None."""
    return {name: value for name, value in (params or {}).items() if value is not None}


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


def reason_of(exc: Exception) -> str:
    """The reason of an HTTP client's error as text, without the values of headers.

    httpx repeats a header that it cannot send, a secret too, in a LocalProtocolError.
    """
    is_local = isinstance(exc, httpx.LocalProtocolError)
    return f"{type(exc).__name__}: the request cannot be sent" if is_local else repr(exc)


def _away(http: httpx.AsyncClient, exc: httpx.TransportError, names: SettingNames) -> BedError:
    if names == OWN_SERVER:
        return _own_away(http, exc)
    url = http.base_url
    endpoint = tls.TlsEndpoint(f"the API at {url}", *names)
    if tls_error := tls.handshake_error(exc, endpoint):
        return tls_error
    closed = url.scheme == "http" and isinstance(exc, httpx.RemoteProtocolError | httpx.ReadError)
    return Unavailable(
        f"the API at {url} did not answer: {reason_of(exc)}",
        hint=f"is the server up? if its listener has TLS, write https:// into {names.api}"
        if closed
        else "is the server up? `testbed up` starts one",
    )


def _own_away(http: httpx.AsyncClient, exc: httpx.TransportError) -> BedError:
    if isinstance(exc, httpx.TimeoutException):
        return Unavailable(
            f"the testbed of this run did not answer in {http.timeout.read:g} s: the computer may"
            " be too busy",
            hint="run again",
        )
    return Unavailable(
        f"the testbed of this run did not answer: {reason_of(exc)}",
        hint="server.log in the folder that --keep leaves says why",
    )


def _unanswered(
    http: httpx.AsyncClient, exc: httpx.TransportError, names: SettingNames
) -> BedError:
    """The error of a request that may have been carried out, though no answer came."""
    away = _away(http, exc, names)
    if names == OWN_SERVER:
        return away
    return Unavailable(
        f"{away.message}; the request may have been carried out",
        hint=f"{away.hint}; look at what is there before you send it once more",
    )
