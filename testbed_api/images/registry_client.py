"""Asks a registry of images which digest a tag stands for, without a password.

Only hosts of the settings are asked, whatever a reference, a redirection or a challenge says.
Source: OCI distribution specification 1.1; Docker's token authentication (distribution.github.io).
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import orjson

from broker.errors import Invalid, Unavailable, Unknown
from broker.http_library import httpx
from broker.prototypes.image import checked_reference
from broker.settings import Address

TIMEOUT_S = 10.0
MOST_ANSWER = 4 * 1024**2
MOST_REDIRECTS = 3
_HUB, _HUB_API, _HUB_TOKENS = "docker.io", "registry-1.docker.io", "auth.docker.io"
_LISTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ACCEPT = ", ".join((*_LISTS, *_MANIFESTS))
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')
_REFERENCE = re.compile(r"(?P<name>.+?)(?::(?P<tag>[^:/@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryReference:
    """An image in a registry.  tag, digest: empty where the reference has none, not both."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "RegistryReference":
        """Parse HOST/NAME:TAG, HOST/NAME@DIGEST or both; without a host it is Docker Hub's.

        Raises Invalid.
        """
        match = _REFERENCE.fullmatch(checked_reference(text))
        if match is None:
            raise Invalid(f"{text[:120]!r} names no image")
        first, slash, rest = match["name"].partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            host, repository = first, rest
        else:
            host, repository = _HUB, match["name"]
            repository = repository if "/" in repository else f"library/{repository}"
        tag, digest = match["tag"] or "", match["digest"] or ""
        return cls(host=host, repository=repository, tag=tag, digest=digest)

    @property
    def api(self) -> str:
        """URL of the registry's API; without TLS on loopback alone."""
        host = _HUB_API if self.host == _HUB else self.host
        name = urlsplit(f"//{host}").hostname or ""
        scheme = "http" if Address(name, 0).is_loopback else "https"
        return f"{scheme}://{host}/v2/{self.repository}"

    def pinned(self, digest: str) -> str:
        """The reference with a digest, and without a tag, which may move."""
        return f"{self.host}/{self.repository}@{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """An image of a registry.  reference: with its digest.  digest: of its manifest.

    architecture: empty where it has several, or the registry keeps that elsewhere.
    size_bytes: of its layers as they are stored, 0 where it has several.
    """

    reference: str
    digest: str
    architecture: str
    size_bytes: int


async def resolve(text: str, hosts: Collection[str]) -> ResolvedImage:
    """Ask the registry of a reference for the digest that it stands for.

    hosts: of the settings, with a port where it is not the usual one.  Raises Invalid for another
    host, and for a tag that stands for another digest than the reference says; Unknown for an image
    that is not there; Unavailable if the registry does not answer.
    """
    reference = RegistryReference.parse(text)
    if reference.host not in hosts:
        known = ", ".join(sorted(hosts)) or "none"
        raise Invalid(
            f"images are not taken from {reference.host}",
            hint=f"registries of this testbed: {known}; its operator sets them"
            " (TESTBED_IMAGE_REGISTRIES), or push an archive with `testbed prototype push`",
        )
    allowed = {*hosts, _HUB_API, _HUB_TOKENS} if _HUB in hosts else set(hosts)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
        return await _Registry(http, reference, frozenset(allowed)).image()


class _Registry:
    """One conversation with the registry of a reference."""

    def __init__(
        self, http: httpx.AsyncClient, reference: RegistryReference, hosts: Collection[str]
    ) -> None:
        self._http = http
        self._reference = reference
        self._hosts = hosts
        self._token = ""

    async def image(self) -> ResolvedImage:
        reference = self._reference
        content, kind = await self._manifest(reference.tag or reference.digest)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if reference.digest not in {"", digest}:
            raise Invalid(
                f"the tag {reference.tag!r} stands for {digest} now, and not for"
                f" {reference.digest}",
                hint="name the digest alone, or the tag alone",
            )
        manifest = self._parsed(content)
        if kind in _LISTS or "manifests" in manifest:
            architecture, size = _of_list(manifest), 0
        else:
            architecture, size = await self._architecture(manifest), _size(manifest)
        return ResolvedImage(
            reference=reference.pinned(digest),
            digest=digest,
            architecture=architecture,
            size_bytes=size,
        )

    async def _manifest(self, name: str) -> tuple[bytes, str]:
        answer, content = await self._get(f"{self._reference.api}/manifests/{name}", _ACCEPT)
        if answer.is_redirect:
            raise self._odd("it sends elsewhere for a manifest")
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind not in {*_LISTS, *_MANIFESTS}:
            raise self._odd(f"its manifest is {kind[:80]!r}, which is none")
        return content, kind

    async def _architecture(self, manifest: Mapping[str, Any]) -> str:
        """The architecture in an image's configuration, empty if that is kept on another host."""
        config = manifest.get("config")
        digest = config.get("digest") if isinstance(config, dict) else None
        if not isinstance(digest, str):
            raise self._odd("its manifest names no configuration")
        answer, content = await self._get(f"{self._reference.api}/blobs/{digest}", "*/*")
        if answer.is_redirect:
            return ""
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise self._odd("its configuration differs from its digest")
        return _architecture_of(self._parsed(content))

    async def _get(self, url: str, accept: str) -> tuple[httpx.Response, bytes]:
        """Ask a host of the settings, with a token where it wants one.

        The last answer is a redirection only where that leads to another host.
        """
        has_asked = False
        for _ in range(MOST_REDIRECTS + 2):
            answer, content = await self._once(url, accept)
            if answer.status_code == httpx.codes.UNAUTHORIZED and not has_asked:
                has_asked = True
                await self._authorize(answer.headers.get("www-authenticate", ""))
            elif answer.is_redirect:
                url = urljoin(url, answer.headers.get("location", ""))
                if not self._is_allowed(url):
                    return answer, b""
            else:
                return self._checked(answer), content
        raise self._odd("it redirects without end")

    async def _once(self, url: str, accept: str) -> tuple[httpx.Response, bytes]:
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if self._token and urlsplit(url).netloc == urlsplit(self._reference.api).netloc:
            headers["Authorization"] = f"Bearer {self._token}"
        content = bytearray()
        try:
            async with self._http.stream("GET", url, headers=headers) as answer:
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > MOST_ANSWER:
                        raise self._odd(f"its answer has more than {MOST_ANSWER:,} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise Unavailable(
                f"the registry {self._reference.host} does not answer: {type(exc).__name__} {exc}",
                hint="try again, or push an archive with `testbed prototype push`",
            ) from exc
        return answer, bytes(content)

    async def _authorize(self, challenge: str) -> None:
        """Get a token without a password, from a host of the settings alone."""
        scheme, _, rest = challenge.partition(" ")
        facts = dict(_CHALLENGE.findall(rest))
        realm = facts.pop("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise self._closed()
        if not self._is_allowed(realm):
            raise Invalid(
                f"the registry {self._reference.host} sends to {urlsplit(realm).netloc[:80]} for a"
                " token, which is no registry of this testbed",
                hint="its operator adds it to TESTBED_IMAGE_REGISTRIES if that is right",
            )
        wanted = {"scope": f"repository:{self._reference.repository}:pull"}
        wanted |= {"service": facts["service"]} if "service" in facts else {}
        answer, content = await self._once(f"{realm}?{urlencode(wanted)}", "application/json")
        if answer.status_code != httpx.codes.OK:
            raise self._closed()
        document = self._parsed(content)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._odd("its token is none")
        self._token = token

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """Return an answer that is one; raises Unknown, Invalid or Unavailable."""
        name = f"{self._reference.host}/{self._reference.repository}"
        match answer.status_code:
            case httpx.codes.OK:
                return answer
            case httpx.codes.NOT_FOUND:
                which = self._reference.tag or self._reference.digest
                raise Unknown(f"there is no image {name} with {which}", hint="look at its name")
            case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
                raise self._closed()
            case status:
                raise Unavailable(
                    f"the registry {self._reference.host} answers with status {status}",
                    hint="try again later",
                )

    def _is_allowed(self, url: str) -> bool:
        """Whether a URL is of a host of the settings, with TLS unless that is this machine."""
        try:
            parts = urlsplit(url)
            name = parts.hostname or ""
        except ValueError:
            return False
        wanted = "http" if name and Address(name, 0).is_loopback else "https"
        return parts.scheme == wanted and parts.netloc in self._hosts

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise self._odd("its answer is no JSON") from exc
        if not isinstance(document, dict):
            raise self._odd("its answer is no JSON object")
        return document

    def _odd(self, why: str) -> Unavailable:
        return Unavailable(f"the registry {self._reference.host} cannot be used: {why}")

    def _closed(self) -> Invalid:
        return Invalid(
            f"the registry {self._reference.host} does not give {self._reference.repository}"
            " without a password",
            hint="push the image as an archive: `testbed prototype push`",
        )


def _of_list(manifest: Mapping[str, Any]) -> str:
    """The architecture of the Linux images in a list, empty for several."""
    listed = manifest.get("manifests")
    platforms = [
        each["platform"]
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and isinstance(each.get("platform"), dict)
    ]
    architectures = {each.get("architecture") for each in platforms if each.get("os") == "linux"}
    if not architectures:
        raise Invalid("the image is for no Linux", hint="build it for linux")
    single = architectures.pop() if len(architectures) == 1 else ""
    return single if isinstance(single, str) else ""


def _architecture_of(config: Mapping[str, Any]) -> str:
    if config.get("os") != "linux":
        raise Invalid(f"the image is for {str(config.get('os'))[:40]}", hint="build it for linux")
    architecture = config.get("architecture")
    return architecture[:40] if isinstance(architecture, str) else ""


def _size(manifest: Mapping[str, Any]) -> int:
    layers = manifest.get("layers")
    sizes = [each.get("size") for each in layers if isinstance(each, dict)] if layers else []
    return sum(each for each in sizes if isinstance(each, int) and 0 <= each < 2**50)
