"""Sends notices to one HTTP listener, signed."""

import hashlib
import hmac
import ssl

import orjson

from broker.clock import NS_PER_S, Clock, text_of
from broker.errors import Unavailable
from broker.http_library import httpx
from testbed_api.domain.notices import QueuedNotice

VERSION = 1
TIMEOUT_S = 10.0


class WebhookSender:
    """Posts each notice as JSON.

    `X-Testbed-Signature` is `sha256=` and the HMAC-SHA256, in hexadecimal digits, of the value of
    `X-Testbed-Timestamp` (seconds since 1970), a full stop and the body.  Any 2xx answer is taken
    as its receipt; a redirection is not followed.
    """

    def __init__(self, url: str, secret: bytes, trust: ssl.SSLContext, clock: Clock) -> None:
        """secret: key of the signature."""
        self._url = url
        self._secret = secret
        self._trust = trust
        self._clock = clock

    async def send(self, notice: QueuedNotice, address: str) -> None:  # noqa: ARG002 - a mail's
        """Post a notice; raises Unavailable unless the listener answers 2xx."""
        named = {"v": VERSION, "id": notice.id, "at": text_of(notice.queued_ns)}
        body = orjson.dumps(named | dict(notice.content))
        timestamp = str(self._clock.now_ns() // NS_PER_S)
        headers = {
            "Content-Type": "application/json",
            "X-Testbed-Timestamp": timestamp,
            "X-Testbed-Signature": f"sha256={signature(self._secret, timestamp, body)}",
        }
        try:
            async with httpx.AsyncClient(verify=self._trust, timeout=TIMEOUT_S) as http:
                response = await http.post(self._url, content=body, headers=headers)
        except httpx.TimeoutException as exc:
            raise Unavailable(f"the webhook did not answer within {TIMEOUT_S:g} s") from exc
        except httpx.HTTPError as exc:
            why = str(exc) or "it ended the connection"
            raise Unavailable(f"the webhook did not answer: {why}") from exc
        if not response.is_success:
            raise Unavailable(f"the webhook answered {response.status_code}")


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The signature of a body, as a listener computes it too."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
