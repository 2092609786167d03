"""Backs up the registry, the ledger and all samples into a folder, and restores them."""
