"""The notes beside a new credential: what it cannot read as yet, and what to do."""

import io

from broker.responses.credentials import NewPrincipalResponse
from testbed.client import credentials
from testbed.terminal.screen import Screen

SECRET = "detector.0123456789abcdef"


def printed(**changed: object) -> tuple[str, str]:
    """What is printed of a new credential, on standard output and on standard error."""
    example = NewPrincipalResponse.example()
    example |= {"credential": SECRET, "not_granted": [], "not_registered": []} | changed
    out, notes = io.StringIO(), io.StringIO()
    credentials.print_created(
        NewPrincipalResponse.model_validate(example),
        Screen(file=out, width=200),
        Screen(file=notes, width=200),
    )
    return out.getvalue(), notes.getvalue()


def test_a_credential_that_reads_all_that_it_lists_stands_without_a_word_more():
    out, notes = printed()
    assert out == f"{SECRET}\n"
    keep, sign_in = notes.splitlines()
    assert keep.startswith("keep it: ")
    assert sign_in.startswith("  testbed sign-in ")


def test_streams_that_are_not_granted_are_named_with_the_command_that_asks_for_them():
    entries = [
        {"space": "live", "stream": "factory/pump-rig/rig"},
        {"space": "run-a", "stream": "factory/pump-rig/rig"},
    ]
    out, notes = printed(not_granted=entries)
    assert out == f"{SECRET}\n"
    assert "factory/pump-rig/rig in live is not granted to company now" in notes
    assert "factory/pump-rig/rig in run-a is not granted to company now" in notes
    command = "testbed grant ask factory/pump-rig/rig run-a:factory/pump-rig/rig --purpose '…'"
    assert command in notes


def test_an_own_stream_that_nobody_registered_may_be_a_wrong_name():
    entry = {"space": "live", "stream": "company/detector/scroe"}
    _, notes = printed(not_registered=[entry])
    assert "company/detector/scroe in live is not registered yet" in notes
    assert "is the name right?" in notes
