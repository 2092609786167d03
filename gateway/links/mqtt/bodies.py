"""The bodies of MQTT messages: compressed or not, in whichever encoding, as JSON or text.  Pure."""

import codecs
import json
import zlib
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.links.values import Unfit

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of a body once it is decompressed; beyond them it is refused."""
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT = 64
_DECODER = json.JSONDecoder()


class Unread:
    """Stands for the rest of a body that is no JSON."""


UNREAD = Unread()


def documents(payload: bytes, encoding: str | None = None) -> Sequence[Any]:
    """Parse a body as JSON: one document, or several behind one another or on lines.

    What is not quite JSON is read as far as it can be: NaN and Infinity are numbers that are not
    finite, and UNREAD stands for a rest that is none.  Raises Unfit if there is no document at all.
    """
    if encoding is None:
        try:
            return (orjson.loads(payload),)
        except orjson.JSONDecodeError:
            pass
    body = text(payload, encoding).strip()
    parsed: list[Any] = []
    at = 0
    while at < len(body):
        try:
            document, at = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):
            if not parsed:
                raise Unfit("it is no JSON") from None
            document, at = UNREAD, len(body)
        parsed.append(document)
        if len(parsed) > 1 and not isinstance(parsed[0], dict | list):
            raise Unfit("it is no JSON")  # such as `12.4 V`, whose begin is a number
        while at < len(body) and body[at] in " \t\r\n,;\x1e":
            at += 1
    if not parsed:
        raise Unfit("it is empty, which is no JSON")
    return parsed


def text(payload: bytes, encoding: str | None = None) -> str:
    """Decode a body as text; encoding: of the mapping, None to look at the bytes.  Raises Unfit."""
    content = _decompressed(payload)
    name = encoding
    for mark, known in _MARKS:
        if content.startswith(mark) and (encoding is None or encoding.startswith("utf")):
            content, name = content[len(mark) :], known
            break
    if name is None:
        name = _utf16(content) or "utf-8"
    try:
        return content.decode(name).rstrip("\0")
    except UnicodeDecodeError as exc:
        cure = "; write `encoding: latin-1`, or what it is" if encoding is None else ""
        byte = content[exc.start]
        raise Unfit(f"byte 0x{byte:02x} is no text in {name.upper()}{cure}") from exc


def _utf16(content: bytes) -> str | None:
    """UTF-16 without a mark, by its zero bytes; None where there is no sign of it."""
    head = content[:_LOOKED_AT]
    if len(head) < 2 or len(content) % 2 or b"\0" not in head:
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if odd * 2 > len(head) // 2 and not even:
        return "utf-16-le"
    return "utf-16-be" if even * 2 > len(head) // 2 and not odd else None


def _decompressed(payload: bytes) -> bytes:
    """The body without the compression of gzip or zlib, which is known by its first bytes."""
    is_gzip = payload.startswith(_GZIP)
    is_zlib = (
        len(payload) > 6
        and payload[0] == 0x78
        and payload[1] in b"\x01\x5e\x9c\xda"
        and int.from_bytes(payload[:2]) % 31 == 0
    )
    if not is_gzip and not is_zlib:
        return payload
    unpacking = zlib.decompressobj(wbits=31 if is_gzip else 15)
    try:
        content = unpacking.decompress(payload, MOST_BYTES)
    except zlib.error as exc:
        if is_zlib:  # a text may begin like that
            return payload
        raise Unfit("its gzip is damaged") from exc
    if unpacking.unconsumed_tail:
        raise Unfit(f"it has more than {MOST_BYTES:,} bytes once it is decompressed")
    if not unpacking.eof:
        raise Unfit("its compressed body is cut")
    return content
