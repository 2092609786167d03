"""Deletes what is older than its retention or asked to be deleted, and keeps proofs of it."""
