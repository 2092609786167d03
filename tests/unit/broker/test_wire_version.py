"""Every message says which wire version it has; one of another version is refused."""

from collections.abc import Callable

import pytest

from broker import audit_head, codec, messages
from broker.errors import Corrupt


@pytest.mark.parametrize(
    "read",
    [
        codec.parse,
        audit_head.decode,
        messages.decode_health,
        messages.decode_mark,
        messages.decode_spec,
    ],
)
def test_a_message_of_an_unknown_wire_version_is_refused(read: Callable[[bytes], object]) -> None:
    with pytest.raises(Corrupt, match="of wire version 2") as raised:
        read(b'{"v":2}')
    assert str(codec.WIRE_VERSION) in raised.value.hint
