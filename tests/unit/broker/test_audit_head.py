"""Heads of the audit: signed, written, read, and not forged."""

from dataclasses import replace

import orjson
import pytest

from broker import audit_head
from broker.audit_head import GENESIS, Head, HeadSigner
from broker.errors import Corrupt, Invalid

SIGNER = HeadSigner.from_seed("07" * 32)
HEAD = SIGNER.sign(17, "a" * 64, 1_700_000_000_000_000_001)


def test_a_signed_head_comes_back_as_it_was():
    assert HEAD.is_signed
    assert audit_head.decode(audit_head.encode(HEAD)) == HEAD


@pytest.mark.parametrize(
    "change",
    [
        {"count": 16},
        {"hash": GENESIS},
        {"time_ns": HEAD.time_ns + 1},
        {"key": HeadSigner.from_seed("08" * 32).key},
        {"key": "no key"},
        {"signature": ""},
        {"signature": HEAD.signature[:-1] + ("0" if HEAD.signature[-1] != "0" else "1")},
    ],
)
def test_a_head_that_was_changed_is_not_signed(change):
    assert not replace(HEAD, **change).is_signed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"v":2}',
        b'{"v":1,"count":1}',
        orjson.dumps(HEAD.as_json | {"count": "17"}),
        orjson.dumps(HEAD.as_json | {"hash": None}),
        orjson.dumps(HEAD.as_json | {"time": "yesterday"}),
    ],
)
def test_what_is_no_head_is_corrupt(payload):
    with pytest.raises(Corrupt):
        audit_head.decode(payload)


@pytest.mark.parametrize("seed", ["", "07", "zz" * 32, "07" * 33])
def test_a_seed_that_is_none_is_refused_and_not_repeated(seed):
    with pytest.raises(Invalid) as raised:
        HeadSigner.from_seed(seed)
    assert not seed or seed not in str(raised.value)


def test_a_head_shows_no_private_key():
    assert "07" * 32 not in repr(HEAD) + repr(Head.from_json(HEAD.as_json))
