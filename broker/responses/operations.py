"""Answers about the testbed itself: alive, ready, and the state of its streams."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from broker import messages
from broker.responses.base import LATER, STREAM, ApiResponse, Instant, OptionalInstant


class BrokerListenerResponse(ApiResponse):
    """The listener of the broker for MQTT clients."""

    host: Annotated[str | None, Field(description="null is the host of this API", examples=[None])]
    port: Annotated[int, Field(examples=[1883])]
    tls: Annotated[bool, Field(examples=[False])]

    def url(self, api: str) -> str:
        """The URL of the broker for a client that reaches the API at the URL `api`."""
        host = self.host or urlsplit(api).hostname or ""
        name = f"[{host}]" if ":" in host else host
        return f"mqtt{'s' if self.tls else ''}://{name}:{self.port}"


class EntryPointResponse(ApiResponse):
    """The service that answers here, the paths that need no credential, and the broker."""

    name: Annotated[str, Field(examples=["connected-testbed"])]
    version: Annotated[str, Field(examples=["0.1.0"])]
    documentation: Annotated[
        str, Field(description="the page for browsers", examples=["/api/v1/docs"])
    ]
    openapi: Annotated[str, Field(examples=["/api/v1/openapi.json"])]
    health: Annotated[str, Field(examples=["/api/v1/health"])]
    broker: BrokerListenerResponse


class HealthResponse(ApiResponse):
    """The process answers."""

    state: Annotated[Literal["alive"], Field(examples=["alive"])]


class ReadinessResponse(ApiResponse):
    """Registry, store and broker answer."""

    state: Annotated[Literal["ready"], Field(examples=["ready"])]


class StreamStatusResponse(ApiResponse):
    """One stream in one space: freshness, alarms, and what went missing lately."""

    stream: Annotated[str, Field(examples=[STREAM])]
    space: Annotated[str, Field(examples=["live"])]
    state: Annotated[
        messages.Freshness | None,
        Field(description="null where no publisher states it", examples=["fresh"]),
    ]
    last: OptionalInstant
    alarms: Annotated[list[str], Field(examples=[[]])]
    gaps: Annotated[int, Field(examples=[0])]
    dead_letters: Annotated[int, Field(examples=[0])]


class NoticeChannelResponse(ApiResponse):
    """A channel on which people are told about requests and decisions, with what waits there."""

    channel: Annotated[str, Field(examples=["mail"])]
    waiting: Annotated[int, Field(description="notices that wait", examples=[2])]
    failed: Annotated[
        int, Field(description="of those, the ones that failed at least once", examples=[2])
    ]
    since: Annotated[Instant, Field(description="when the oldest was queued")]
    reason: Annotated[
        str, Field(description="why one failed", examples=["the webhook answered 500"])
    ]


class BusRefusalResponse(ApiResponse):
    """Connects, publishes or subscriptions of one kind that the broker refused."""

    act: Annotated[str, Field(description="connect, publish or subscribe", examples=["subscribe"])]
    principal: Annotated[
        str | None,
        Field(
            description="null is unknown; at a connect the name that it gave", examples=["detector"]
        ),
    ]
    organisation: Annotated[
        str | None,
        Field(description="of the principal; null is nobody admitted", examples=["company"]),
    ]
    target: Annotated[
        str,
        Field(description="topic or filter, or the broker", examples=[f"tb1/live/data/{STREAM}"]),
    ]
    reason: Annotated[str, Field(examples=["its rights do not cover this topic"])]
    source: Annotated[
        str, Field(description="the address that it came from", examples=["10.0.0.7"])
    ]
    count: Annotated[int, Field(examples=[10_482])]
    first: Annotated[Instant, Field(description="the first of them since `since`")]
    last: Annotated[str, Field(examples=[LATER])]
    advice: Annotated[
        str,
        Field(
            description="what to do about it, for people",
            examples=["see `testbed grant list` for what is granted"],
        ),
    ]
    own: Annotated[
        bool,
        Field(
            description="whether it is of the caller's organisation, or for who operates the"
            " testbed of nobody known",
            examples=[True],
        ),
    ]


class SilentGatewayResponse(ApiResponse):
    """A gateway that states no health of its streams any more: it ended, or it is cut off."""

    equipment: Annotated[str, Field(examples=["factory/pump-rig"])]
    space: Annotated[str, Field(examples=["live"])]
    since: Annotated[Instant, Field(description="end of its last valid health")]


class StatusResponse(ApiResponse):
    """The state of all streams that the caller watches."""

    since: Instant
    interrupted: Annotated[
        str | None,
        Field(description="why nothing is recorded just now; null while all is", examples=[None]),
    ]
    broker: Annotated[
        bool, Field(description="whether the API is connected to the broker", examples=[True])
    ]
    alarms: Annotated[
        list[str],
        Field(
            description="what is wrong with the testbed itself, such as a certificate that ends or"
            " a clock that was set; for who operates it alone",
            examples=[[]],
        ),
    ]
    notices: Annotated[
        list[NoticeChannelResponse],
        Field(description="channels where notices wait; for who operates the testbed alone"),
    ]
    refused: Annotated[
        list[BusRefusalResponse],
        Field(
            description="what the broker refused since then, of a day at most: to the caller's"
            " organisation, of what is its, or to all for who operates the testbed"
        ),
    ]
    silent: Annotated[
        list[SilentGatewayResponse], Field(description="gateways that state no health any more")
    ]
    streams: list[StreamStatusResponse]
