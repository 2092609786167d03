"""Transactions over a spool's file and the counters in memory that follow from it."""

import sqlite3
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

_S = TypeVar("_S")


class Restorable(Protocol[_S]):
    """State in memory that is restored when its transaction is rolled back."""

    def snapshot(self) -> _S:
        """Copy the state."""

    def restore(self, snapshot: _S) -> None:
        """Replace the state with a copy made before."""


class Transaction(Generic[_S]):
    """One transaction: the block's changes to file and memory are both committed, or neither is."""

    def __init__(self, sql: sqlite3.Connection, state: Restorable[_S]) -> None:
        """state: changed inside the block only."""
        self._sql = sql
        self._state = state
        self._before = state.snapshot()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._sql.__exit__(kind, exc, traceback)
        except BaseException:
            self._state.restore(self._before)
            raise
        if kind is not None:
            self._state.restore(self._before)

    def savepoint(self) -> _S:
        """Begin changes that `roll_back_to` can undo; a transaction has one savepoint."""
        self._sql.execute("SAVEPOINT part")
        return self._state.snapshot()

    def roll_back_to(self, savepoint: _S) -> None:
        """Undo the changes since the savepoint; those before it stay in the transaction."""
        self._sql.execute("ROLLBACK TO part")
        self._state.restore(savepoint)
