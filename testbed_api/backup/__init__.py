"""Writes the registry and the ledger into an archive, and restores them."""
