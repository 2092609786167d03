"""Middleware around every request: audit, rate limit and body limit."""
