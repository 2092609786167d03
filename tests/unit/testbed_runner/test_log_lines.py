"""The output of a program on its way out: printable, bounded, and without its secrets."""

import pytest

from broker.clock import NS_PER_S
from broker.deployments.report import MOST_LINE
from testbed_runner.log_lines import BYTES_PER_S, LineCutter, Redaction
from testbed_runner.port import LogPiece

NONE = Redaction({})
SECRETS = Redaction({"CLOUD_KEY": "hunter22", "credential": "watch-12.abcdefghijklmnop"})


def texts(cutter: LineCutter, *pieces: bytes, every_ns: int = NS_PER_S) -> list[str]:
    lines = []
    for number, content in enumerate(pieces, 1):
        lines += cutter.feed(LogPiece(at_ns=number * every_ns, content=content))
    return [line.text for line in [*lines, *cutter.end()]]


def test_lines_are_cut_where_they_end_and_not_where_pieces_do():
    assert texts(LineCutter(NONE), b"read", b"ing rig\nnext\nla", b"st") == [
        "reading rig",
        "next",
        "last",
    ]


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"\x00\xff\xfe", r"\x00\xff\xfe"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
        (b" 10 %\r 20 %\r", " 20 %"),
        (b"a\tb", "a   b"),
        ("grün ✓".encode(), "grün ✓"),
        (b"turned \xe2\x80\xae round", r"turned \u202e round"),
    ],
)
def test_whatever_is_printed_becomes_printable(printed, text):
    assert texts(LineCutter(NONE), printed + b"\n") == [text]


def test_a_long_line_is_cut_and_its_rest_is_not_another_line():
    cutter = LineCutter(NONE)
    lines = texts(cutter, *[b"x" * 9_000] * 5, b"\nshort\n")
    assert [len(lines[0]), lines[0][-2:], lines[1:]] == [MOST_LINE, "x…", ["short"]]


def test_secrets_are_replaced_by_their_names():
    printed = b"key=hunter22 as watch-12.abcdefghijklmnop or abcdefghijklmnop\n"
    assert texts(LineCutter(SECRETS), printed) == [
        "key=[secret CLOUD_KEY] as [secret credential] or [secret credential]"
    ]


def test_a_secret_is_found_where_pieces_cut_it():
    assert texts(LineCutter(SECRETS), b"hun", b"ter22\n") == ["[secret CLOUD_KEY]"]


def test_a_secret_is_found_below_colours():
    assert texts(LineCutter(SECRETS), b"hun\x1b[1mter22\n") == ["[secret CLOUD_KEY]"]


def test_nothing_of_a_secret_stays_where_a_long_line_is_cut():
    for length in range(8_000, 8_200):
        line = b"\x1b[0m" * (length // 4) + b"-" * (length % 4) + b"abcdefghijklmnop"
        text = "".join(texts(LineCutter(SECRETS), line + b"y" * 9_000 + b"\n"))
        assert "abc" not in text.replace("[secret credential]", "")


def test_each_line_of_a_secret_of_several_is_replaced():
    redaction = Redaction({"KEY": "-----BEGIN-----\nMIIBVgIB\n-----END-----\n"})
    assert texts(LineCutter(redaction), b"found MIIBVgIB\n") == ["found [secret KEY]"]


def test_a_secret_of_three_characters_is_not_looked_for():
    assert texts(LineCutter(Redaction({"PIN": "123"})), b"12345\n") == ["12345"]


def test_lines_that_come_too_fast_are_dropped_and_counted():
    line = b"y" * 63 + b"\n"
    per_s = BYTES_PER_S // len(line)
    cutter = LineCutter(NONE)
    lines = texts(cutter, *[line * 10_000] * 3)
    sentences = [text for text in lines if text.startswith("…")]
    dropped = sum(int(text.split()[1].replace(",", "")) for text in sentences)
    passed = len(lines) - len(sentences)
    assert 3 * per_s - 2 <= passed <= 3 * per_s + 3
    assert [dropped + passed, len(sentences)] == [30_000, 3]
    assert sentences[0].endswith("lines were dropped: it prints more than 64 KiB/s")


def test_a_backlog_that_was_printed_slowly_is_passed_on_whole():
    pieces = [b"z" * 999 + b"\n"] * 600
    assert len(texts(LineCutter(NONE), *pieces, every_ns=NS_PER_S // 50)) == 600


def test_a_clock_that_is_set_back_drops_nothing():
    cutter = LineCutter(NONE)
    cutter.feed(LogPiece(at_ns=10**18, content=b"before\n"))
    line = cutter.feed(LogPiece(at_ns=10**15, content=b"after\n"))
    assert [each.text for each in line] == ["after"]


def test_lines_that_were_passed_on_before_are_not_passed_on_again():
    pieces = [LogPiece(at_ns=5, content=b"a\nb\nc\n"), LogPiece(at_ns=6, content=b"d\n")]
    first = [line for piece in pieces for line in LineCutter(NONE).feed(piece)]
    last = first[1]
    again = LineCutter(NONE, skip=(last.at_ns, last.index))
    assert [line.text for piece in pieces for line in again.feed(piece)] == ["c", "d"]
