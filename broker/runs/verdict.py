"""The verdict on a run, from the results of its expectations.  Pure.

The run that judges and the testbed that checks its record ask the same function.
"""

from collections.abc import Iterable


def passes(results: Iterable[bool], incidents: Iterable[str]) -> bool:
    """Whether a run passed: each expectation did, and nothing else makes it fail.

    results: whether each expectation passed.  incidents: sentences about what makes a run fail in
    any case.  A scenario that expects nothing passes.
    """
    return all(results) and not any(True for _ in incidents)
