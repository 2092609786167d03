"""Recordings on the server: made of stored samples in a folder, and removed from it."""
