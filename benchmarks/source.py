"""The load source: an OPC UA server that is cheap per value, so that it is not what is measured.

Sessions and subscriptions are those of any server, with asyncua's own structures; only publishes
are bytes that were laid out before.  A publish holds at most `--most` notifications, as servers do
it whatever the client asks for, and waits for a request of the client.  What the client is too slow
for is kept for `--kept-s` and then dropped, and said to be: such a run has not held.
Source: OPC UA Part 4, 5.13 and 5.14.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

from benchmarks import wire
from benchmarks.load import NAMESPACE, Load, item_of
from broker.clock import NS_PER_S, Clock, WallClock

KEPT_S = 30.0
RESENDABLE = 100
"""Publishes that are kept until they are acknowledged."""
SETTLING_S = 2.0
"""From the last new item to the first samples, so that all items begin together."""
_IDS = ua.ObjectIds


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One notification message that waits for a publish request, or for its acknowledgement."""

    sequence: int
    count: int
    rows: bytes
    made_ns: int


class Subscription:
    """One subscription: its items, what waits to be sent, what may be asked for again."""

    def __init__(self, number: int, interval_s: float, keep_alives: int) -> None:
        self.number = number
        self.interval_s = interval_s
        self.keep_alives = keep_alives
        self.quiet = 0
        self.waiting: deque[Message] = deque()
        self.sent: dict[int, Message] = {}
        self.items: list[int] = []
        self.handles: list[int] = []
        self.mask = wire.SOURCE_ONLY
        self.layout: wire.Notifications | None = None
        self.next_seq = 0
        self.next_sequence = 1
        self.dropped = 0
        self.values = 0

    def monitor(self, item: int, handle: int, stamps: Any) -> None:
        """One more item, from now on."""
        self.items.append(item)
        self.handles.append(handle)
        if stamps in {ua.TimestampsToReturn.Both, ua.TimestampsToReturn.Server}:
            self.mask = wire.SOURCE_AND_SERVER
        self.layout = None

    def lay_out(self) -> wire.Notifications:
        """The items' notifications, laid out anew if there are more of them."""
        if self.layout is None:
            self.layout = wire.Notifications(self.handles, self.mask)
        return self.layout


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """most: notifications in a publish.  now: time stamps are the moment of sending, one sample an
    interval.  kept_s: how long a client may be too slow.
    """

    load: Load
    most: int
    now: bool
    kept_s: float = KEPT_S


class Session(asyncio.Protocol):
    """One connection of a client, with its session."""

    def __init__(self, options: Options, clock: Clock, tell: Callable[..., None]) -> None:
        self._options = options
        self._clock = clock
        self._tell = tell
        self._frames = wire.Frames()
        self._channel = wire.Channel()
        self._transport: asyncio.Transport | None = None
        self._requests: deque[tuple[int, int, list[int]]] = deque()
        self._subscriptions: dict[int, Subscription] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._url = ""
        self._paused = False

    def pause(self) -> None:
        """Take no more samples; what waits is still sent."""
        self._paused = True
        for subscription in self._subscriptions.values():
            if subscription.values:
                facts = {
                    "next_seq": subscription.next_seq,
                    "values": subscription.values,
                    "dropped": subscription.dropped,
                }
                self._tell("paused", item=subscription.items[0], **facts)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport  # type: ignore[assignment]  # a TCP connection's is a Transport
        host, port = transport.get_extra_info("sockname")[:2]
        self._url = f"opc.tcp://{host}:{port}"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Nothing goes on without the client."""
        for number in list(self._subscriptions):
            self._delete(number)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        for frame in self._frames.take(data):
            if frame.kind == b"HEL":
                self._write([self._channel.acknowledge(frame.body)])
            elif frame.kind == b"CLO":
                if self._transport is not None:
                    self._transport.close()
            else:
                self._serve(frame)

    def _serve(self, frame: wire.Frame) -> None:
        body = Buffer(frame.body)
        kind: Any = nodeid_from_binary(body).Identifier
        header = struct_from_binary(ua.RequestHeader, body)
        if kind == _IDS.PublishRequest_Encoding_DefaultBinary:
            self._publish(frame.request, header.RequestHandle, body)
            return
        answer = self._answer(kind, body)
        answer.ResponseHeader.RequestHandle = header.RequestHandle
        answer.ResponseHeader.Timestamp = _moment()
        content = struct_to_binary(answer)
        if frame.kind == b"OPN":
            self._write([self._channel.opened(frame.request, content)])
        else:
            self._write(self._channel.message(frame.request, content))

    def _answer(self, kind: int, body: Any) -> Any:
        handlers: Mapping[int, Callable[[Any], Any]] = {
            _IDS.OpenSecureChannelRequest_Encoding_DefaultBinary: self._open_channel,
            _IDS.GetEndpointsRequest_Encoding_DefaultBinary: self._get_endpoints,
            _IDS.CreateSessionRequest_Encoding_DefaultBinary: self._create_session,
            _IDS.ActivateSessionRequest_Encoding_DefaultBinary: self._activate,
            _IDS.CloseSessionRequest_Encoding_DefaultBinary: self._close,
            _IDS.ReadRequest_Encoding_DefaultBinary: self._read,
            _IDS.CreateSubscriptionRequest_Encoding_DefaultBinary: self._subscribe,
            _IDS.CreateMonitoredItemsRequest_Encoding_DefaultBinary: self._monitor,
            _IDS.DeleteSubscriptionsRequest_Encoding_DefaultBinary: self._unsubscribe,
            _IDS.RepublishRequest_Encoding_DefaultBinary: self._republish,
        }
        if kind not in handlers:
            fault = ua.ServiceFault()
            fault.ResponseHeader.ServiceResult = _status(ua.StatusCodes.BadServiceUnsupported)
            return fault
        return handlers[kind](body)

    # --- channel and session ---------------------------------------------------------------------

    def _open_channel(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.OpenSecureChannelParameters, body)
        answer = ua.OpenSecureChannelResponse()
        token = answer.Parameters.SecurityToken
        token.ChannelId, token.TokenId = wire.Channel.ID, wire.Channel.TOKEN
        token.CreatedAt, token.RevisedLifetime = _moment(), parameters.RequestedLifetime
        answer.Parameters.ServerNonce = b""
        return answer

    def _endpoint(self) -> Any:
        endpoint = ua.EndpointDescription()
        endpoint.EndpointUrl = self._url
        endpoint.Server.ApplicationUri = NAMESPACE
        endpoint.Server.ApplicationType = ua.ApplicationType.Server
        endpoint.SecurityMode = ua.MessageSecurityMode.None_
        endpoint.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
        policy = ua.UserTokenPolicy()
        policy.PolicyId, policy.TokenType = "anonymous", ua.UserTokenType.Anonymous
        endpoint.UserIdentityTokens = [policy]
        endpoint.TransportProfileUri = (
            "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
        )
        return endpoint

    def _get_endpoints(self, _body: Any) -> Any:
        answer = ua.GetEndpointsResponse()
        answer.Endpoints = [self._endpoint()]
        return answer

    def _create_session(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.CreateSessionParameters, body)
        answer = ua.CreateSessionResponse()
        results = answer.Parameters
        results.SessionId, results.AuthenticationToken = _node(1, 1), _node(2, 1)
        results.RevisedSessionTimeout = parameters.RequestedSessionTimeout
        results.ServerNonce = bytes(32)
        results.ServerEndpoints = [self._endpoint()]
        return answer

    def _activate(self, _body: Any) -> Any:
        answer = ua.ActivateSessionResponse()
        answer.Parameters.ServerNonce = bytes(32)
        return answer

    def _close(self, _body: Any) -> Any:
        for number in list(self._subscriptions):
            self._delete(number)
        return ua.CloseSessionResponse()

    def _read(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.ReadParameters, body)
        answer = ua.ReadResponse()
        answer.Results = [_attribute(each) for each in parameters.NodesToRead]
        return answer

    # --- subscriptions ---------------------------------------------------------------------------

    def _subscribe(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.CreateSubscriptionParameters, body)
        number = max(self._subscriptions, default=0) + 1
        interval_ms = max(parameters.RequestedPublishingInterval, 10.0)
        subscription = Subscription(
            number, interval_ms / 1000, max(parameters.RequestedMaxKeepAliveCount, 1)
        )
        self._subscriptions[number] = subscription
        answer = ua.CreateSubscriptionResponse()
        results = answer.Parameters
        results.SubscriptionId, results.RevisedPublishingInterval = number, interval_ms
        results.RevisedLifetimeCount = parameters.RequestedLifetimeCount
        results.RevisedMaxKeepAliveCount = subscription.keep_alives
        self._later(subscription)
        return answer

    def _monitor(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.CreateMonitoredItemsParameters, body)
        subscription = self._subscriptions[parameters.SubscriptionId]
        answer = ua.CreateMonitoredItemsResponse()
        for request in parameters.ItemsToCreate:
            result = ua.MonitoredItemCreateResult()
            result.MonitoredItemId = len(subscription.items) + 1
            result.RevisedQueueSize = request.RequestedParameters.QueueSize
            try:
                item = item_of(request.ItemToMonitor.NodeId.Identifier)
            except ValueError:
                result.StatusCode = _status(ua.StatusCodes.BadNodeIdUnknown)
            else:
                handle = request.RequestedParameters.ClientHandle
                subscription.monitor(item, handle, parameters.TimestampsToReturn)
            answer.Results.append(result)
        if not subscription.values:
            now_ns = self._clock.now_ns() + round(SETTLING_S * NS_PER_S)
            subscription.next_seq = self._options.load.before(now_ns) + 1
        return answer

    def _unsubscribe(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.DeleteSubscriptionsParameters, body)
        answer = ua.DeleteSubscriptionsResponse()
        for number in parameters.SubscriptionIds:
            self._delete(number)
            answer.Results.append(_status(ua.StatusCodes.Good))
        return answer

    def _delete(self, number: int) -> None:
        subscription = self._subscriptions.pop(number, None)
        if subscription is None:
            return
        self._timers.pop(number).cancel()
        waiting = sum(message.count for message in subscription.waiting)
        self._tell(
            "unsubscribed",
            item=subscription.items[0] if subscription.items else None,
            waiting=waiting,
        )

    def _republish(self, body: Any) -> Any:
        parameters = struct_from_binary(ua.RepublishParameters, body)
        fault = ua.ServiceFault()
        code = ua.StatusCodes.BadMessageNotAvailable
        fault.ResponseHeader.ServiceResult = _status(code)
        subscription = self._subscriptions.get(parameters.SubscriptionId)
        message = (
            subscription.sent.get(parameters.RetransmitSequenceNumber) if subscription else None
        )
        if message is None:
            return fault
        text = wire.notification_message(
            message.sequence, message.count, message.rows, message.made_ns
        )
        answer = ua.RepublishResponse()
        answer.NotificationMessage = struct_from_binary(ua.NotificationMessage, Buffer(text))
        return answer

    # --- publishing ------------------------------------------------------------------------------

    def _later(self, subscription: Subscription) -> None:
        """Set the clock for its next publishing cycle, a whole multiple of the interval."""
        interval_ns = round(subscription.interval_s * NS_PER_S)
        rest_s = (interval_ns - self._clock.now_ns() % interval_ns) / NS_PER_S
        loop = asyncio.get_running_loop()
        self._timers[subscription.number] = loop.call_later(rest_s, self._cycle, subscription)

    def _cycle(self, subscription: Subscription) -> None:
        self._later(subscription)
        now_ns = self._clock.now_ns()
        before = subscription.values
        if subscription.items and not self._paused:
            self._sample(subscription, now_ns)
        if subscription.values == before and not subscription.waiting:
            subscription.quiet += 1
            if subscription.quiet >= subscription.keep_alives and self._requests:
                self._send(subscription, Message(subscription.next_sequence, 0, b"", now_ns))
        while (
            subscription.waiting
            and now_ns - subscription.waiting[0].made_ns > self._options.kept_s * NS_PER_S
        ):
            subscription.dropped += subscription.waiting.popleft().count
        self._drain()

    def _sample(self, subscription: Subscription, now_ns: int) -> None:
        """What its items have given since the last cycle, as messages that wait."""
        load, items = self._options.load, np.array(subscription.items, np.int64)[:, None]
        if self._options.now:
            seqs = np.array([[subscription.next_seq]], np.int64)
            stamp = now_ns // 1_000 * 1_000
            times_ns = np.full((len(items), 1), stamp, np.int64)
            subscription.next_seq += 1
        else:
            seqs = np.arange(subscription.next_seq, load.before(now_ns), dtype=np.int64)[None, :]
            if not seqs.size:
                return
            subscription.next_seq = int(seqs[0, -1]) + 1
            times_ns = load.times_ns(items, seqs)
        if not subscription.values:
            first = int(seqs[0, 0])
            self._tell("publishing", item=subscription.items[0], items=len(items), first_seq=first)
        values = load.values(items, seqs)
        for count, rows in subscription.lay_out().cut(times_ns, values, self._options.most):
            subscription.waiting.append(Message(subscription.next_sequence, count, rows, now_ns))
            subscription.next_sequence += 1
            subscription.values += count

    def _publish(self, request: int, handle: int, body: Any) -> None:
        parameters = struct_from_binary(ua.PublishParameters, body)
        results = []
        for acknowledgement in parameters.SubscriptionAcknowledgements:
            subscription = self._subscriptions.get(acknowledgement.SubscriptionId)
            known = (
                subscription is not None
                and subscription.sent.pop(acknowledgement.SequenceNumber, None) is not None
            )
            codes = ua.StatusCodes
            results.append(int(codes.Good if known else codes.BadSequenceNumberUnknown))
        self._requests.append((request, handle, results))
        self._drain()

    def _drain(self) -> None:
        """Send what waits, as far as the client has asked for it."""
        for subscription in self._subscriptions.values():
            while subscription.waiting and self._requests:
                message = subscription.waiting.popleft()
                subscription.sent[message.sequence] = message
                while len(subscription.sent) > RESENDABLE:
                    del subscription.sent[next(iter(subscription.sent))]
                self._send(subscription, message)

    def _send(self, subscription: Subscription, message: Message) -> None:
        request, handle, results = self._requests.popleft()
        subscription.quiet = 0
        published = wire.Published(
            handle,
            subscription.number,
            list(subscription.sent),
            bool(subscription.waiting),
            results,
        )
        now_ns = self._clock.now_ns()
        text = wire.notification_message(message.sequence, message.count, message.rows, now_ns)
        answer = wire.publish_response(published, text, now_ns)
        self._write(self._channel.message(request, answer))

    def _write(self, pieces: Iterable[bytes]) -> None:
        if self._transport is not None:
            self._transport.writelines(pieces)


def _attribute(node_to_read: Any) -> Any:
    """The answer to the read of one attribute; nodes that are not ours are unknown."""
    node, attribute = node_to_read.NodeId, node_to_read.AttributeId
    own = {
        _IDS.Server_NamespaceArray: ["http://opcfoundation.org/UA/", NAMESPACE],
        _IDS.Server_ServerStatus_State: 0,
    }
    if node.NamespaceIndex == 0 and node.Identifier in own:
        return ua.DataValue(ua.Variant(own[node.Identifier]))
    try:
        item_of(node.Identifier)
    except ValueError:
        return ua.DataValue(StatusCode=_status(ua.StatusCodes.BadNodeIdUnknown))
    values = {
        ua.AttributeIds.DataType: ua.Variant(_node(_IDS.Double)),
        ua.AttributeIds.ValueRank: ua.Variant(-1, ua.VariantType.Int32),
        ua.AttributeIds.Value: ua.Variant(0.0),
    }
    if attribute not in values:
        return ua.DataValue(StatusCode=_status(ua.StatusCodes.BadAttributeIdInvalid))
    return ua.DataValue(values[attribute])


def _node(number: int, namespace: int = 0) -> Any:
    return ua.NodeId(ua.Int32(number), ua.Int16(namespace))


def _status(code: Any) -> Any:
    return ua.StatusCode(ua.UInt32(code))


def _moment() -> datetime:
    return datetime.fromtimestamp(WallClock().now_ns() / NS_PER_S, UTC)


def _tell(event: str, **facts: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps({"event": event, **facts}) + b"\n")
    sys.stdout.buffer.flush()


async def serve(options: Options, port: int, clock: Clock) -> None:
    """Serve until SIGTERM; SIGUSR1 ends the samples.  Events are JSON on standard output."""
    loop = asyncio.get_running_loop()
    sessions: list[Session] = []

    def session() -> Session:
        sessions.append(Session(options, clock, _tell))
        return sessions[-1]

    def pause() -> None:
        for session in sessions:
            session.pause()

    server = await loop.create_server(session, "127.0.0.1", port)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, pause)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _tell("ready", url=f"opc.tcp://127.0.0.1:{port}")
        await ended.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="OPC UA load source")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--signals", type=int, required=True, help="of each stream")
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--own", action="store_true", help="each sample its own time stamp")
    parser.add_argument("--now", action="store_true", help="time stamp = moment of sending")
    parser.add_argument("--most", type=int, default=1_000, help="notifications in a publish")
    parser.add_argument("--kept-s", type=float, default=KEPT_S, help="for a client that is slow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    load = Load(given.streams, given.signals, given.rate_hz, given.own, given.seed)
    with contextlib.suppress(KeyboardInterrupt):
        options = Options(load, given.most, given.now, given.kept_s)
        asyncio.run(serve(options, given.port, WallClock()))


if __name__ == "__main__":
    main()
