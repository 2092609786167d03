"""Deletes samples that are older than their retention or requested for deletion, with proofs."""
