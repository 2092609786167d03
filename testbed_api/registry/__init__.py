"""The registry in SQL: who there is, what they share, and beside it the recorder's tables."""
