"""Arrays in the lines of `testbed tap`."""

import io

import numpy as np
from rich.console import Console

from broker.batch import BAD, Batch, Source, Wide
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed.client import tap
from testbed_sdk import Received

SPEC = StreamSpec(
    StreamAddress("factory", "mill", "spindle"),
    (Signal("spectrum", unit="m/s2", shape=(256,)), Signal("on", Dtype.BOOL, shape=(2,))),
)


def test_a_long_array_is_shortened_and_a_short_one_is_not() -> None:
    frame = Wide(
        np.array([5, 6]),
        {
            "spectrum": np.stack([np.arange(256) / 4, np.full(256, np.nan)]),
            "on": np.array([[True, False]] * 2),
        },
        {"spectrum": np.array([0, BAD], np.uint8)},
    )
    out = Console(file=io.StringIO(), width=200)
    tap.text_printer(out)(Received(Batch(1, (frame,), Source.LIVE), SPEC, 0))
    first, second = out.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert first.endswith(
        "spectrum (0, 0.25, 0.5, 0.75 … 63.75; 256 elements) m/s2  on (True, False)"
    )
    assert "elements) m/s2 (bad)  on" in second
