"""Every topic verb, for everybody, to be published, kept and heard: what the policy says."""

from collections.abc import Iterator

from broker import policy
from broker.namespace import (
    LIVE,
    RUN_VERBS,
    STREAM_VERBS,
    AnchorTopic,
    EquipmentAddress,
    MarkTopic,
    RunTopic,
    StreamAddress,
    StreamTopic,
    Topic,
    Verb,
)
from broker.policy import Topics
from tests.probes.cast import RIG, RUN, SPARE, STREAMS, WATCHER, Cast

_RIG_DATA = f"tb1/live/data/{RIG}"
WIDE = (
    *("#", "+", "+/#", "/#", "tb1/#", "tb1/+/data/#", "+/live/data/factory/pump-rig/rig"),
    *("tb1/+/data/factory/pump-rig/rig", "tb1/live/+/factory/pump-rig/rig"),
    *("tb1/live/data/#", "tb1/live/data/+/pump-rig/rig", "tb1/live/data/factory/+/rig"),
    *("tb1/live/data/factory/pump-rig/+", "tb1/live/data/factory/pump-rig/#", f"{_RIG_DATA}/#"),
    *("tb1/live/mark/#", "tb1/live/mark/+/+", "tb1/live/anchor/#", "tb1/live/late/#"),
    *("tb1/+/clock/#", f"tb1/{RUN}/clock/#", f"tb1/{RUN}/ready/+/+"),
)
"""Filters that cover more than one stream; only the testbed itself may have one."""
ODD = (
    *("$SYS/#", "$SYS/REQ/#", "$SYS/ACCOUNT/#", "$MQTT/#", "$MQTT/sub/#", "$MQTT/msgs/#"),
    *("$JS/#", "$JS/API/#", "$KV/#", "$O/#", "$CONTROL/#", "$CONTROL/dynamic-security/v1/#"),
    *(f"$share/probe/{_RIG_DATA}", f"$queue/{_RIG_DATA}", "$testbed/reconciler", "_INBOX/#"),
)
"""Filters of the brokers' own, where there would be whatever anybody sends."""
TWISTED = (
    *(_RIG_DATA.replace("/", "."), f"/{_RIG_DATA}", f"{_RIG_DATA}/", f"{_RIG_DATA}/x"),
    *(_RIG_DATA.upper(), _RIG_DATA.replace("/data", "//data"), f"{_RIG_DATA}.x", "tb1/live/data"),
    *("tb1/live/data/factory.pump-rig/rig", "tb1/live/data/factory/pump-rig/>", "tb1.>", ">", "*"),
    *("tb1/live/data/factory/pump-rig/*", "tb1/live/data/../data/factory/pump-rig/rig"),
    *("tb1/live/data/factory/%70ump-rig/rig", "tb1/live/data/factory/pump-rig/rig ", "tb1/live"),
    *("tb1/live/do/factory/pump-rig/start/company-owner", "tb1/live/rights/factory/pump-rig"),
)
"""What somebody who wants in would try in the place of a topic."""
INJECTED = (
    *("$SYS/REQ/USER/AUTH", "$SYS/REQ/SERVER/PING", "$MQTT/sub/1", f"$MQTT/msgs/{_RIG_DATA}"),
    *("$MQTT/rmsgs/tb1", "$MQTT/JSA/id/SC/1", "$JS/API/STREAM/DELETE/$MQTT_msgs", "$JS/ACK/x"),
    *("$CONTROL/dynamic-security/v1", "_INBOX/x", f"$share/probe/{_RIG_DATA}"),
    *("tb1/live/data/+/pump-rig/rig", "tb1/live/data/factory/pump-rig/#", "#", "+"),
)


def topic_of(verb: Verb, stream: StreamAddress, space: str) -> Topic | None:
    """The topic of a verb, None where there is none; a verb without a decision fails here."""
    if verb in STREAM_VERBS:
        return StreamTopic(space, verb, stream)
    if verb is Verb.MARK:
        return MarkTopic(space, stream.owner)
    if verb is Verb.ANCHOR:
        return AnchorTopic(stream.owner) if space == LIVE else None
    if verb in RUN_VERBS:
        return None if space == LIVE else RunTopic(space, verb, stream.owner)
    raise AssertionError(f"no probe knows what a topic of verb {verb} is about")


def exact() -> list[str]:
    """A topic of each verb about each stream, in both spaces, and of ones that are missing."""
    missing = EquipmentAddress("factory", "missing")
    streams = (*STREAMS, StreamAddress(missing.organisation, missing.equipment, "rig"))
    topics = {
        str(topic)
        for verb in Verb
        for stream in streams
        for space in (LIVE, RUN)
        if (topic := topic_of(verb, stream, space)) is not None
    }
    return sorted(topics)


def allowed(cast: Cast, who: str, at_ns: int) -> Topics:
    """What the policy lists for whoever shows that credential; nothing if it is not believed."""
    if who not in cast.whose:
        return Topics()
    return policy.topics(cast.rights, cast.whose[who], at_ns)


def probes(cast: Cast) -> Iterator[str]:
    """The names of all who probe the bus."""
    return (who for who in cast.credentials if who != WATCHER and not who.startswith(SPARE))
