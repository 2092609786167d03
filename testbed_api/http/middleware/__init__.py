"""What surrounds every request: audit, rate limit and body limit."""
