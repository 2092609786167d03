"""Notices to people: queued with the change that they are about, and sent until they arrive."""
