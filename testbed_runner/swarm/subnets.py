"""Gives each deployment on a swarm a network of its own, from one pool of addresses.  Pure.

Swarm's own choice takes a /24 for each network, and says nothing once it has none left.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network

from broker.errors import Invalid
from testbed_runner.port import EngineAway

DEFAULT_POOL = "10.131.0.0/16"
OUTER_PREFIX = 20
"""The first part of the pool is the network by which all relays reach the testbed."""
INNER_PREFIX = 28
"""Of a deployment's network: two members, and the addresses that Docker takes of each network."""


def checked_pool(text: str) -> IPv4Network:
    """Return a pool of addresses; raises Invalid."""
    try:
        pool = IPv4Network(text)
    except ValueError as exc:
        raise Invalid(
            f"{text!r} is no pool of addresses: {exc}", hint=f"such as {DEFAULT_POOL}"
        ) from exc
    if pool.prefixlen >= OUTER_PREFIX:
        raise Invalid(
            f"the pool {pool} is too small", hint=f"at least a /{OUTER_PREFIX - 1}, and unused"
        )
    return pool


def outer(pool: IPv4Network) -> IPv4Network:
    """The subnet of the network by which relays reach the testbed."""
    return next(pool.subnets(new_prefix=OUTER_PREFIX))


def free_inner(pool: IPv4Network, used: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet for a deployment that overlaps none of these; raises EngineAway."""
    outer_part = outer(pool)
    own = [each for each in used if each.overlaps(pool)]
    taken = {each for each in own if each.prefixlen == INNER_PREFIX}
    others = [each for each in own if each.prefixlen != INNER_PREFIX]
    for subnet in pool.subnets(new_prefix=INNER_PREFIX):
        if subnet in taken or subnet.overlaps(outer_part):
            continue
        if not any(subnet.overlaps(other) for other in others):
            return subnet
    raise EngineAway(f"no network is free for it: all of the pool {pool} are in use")
