"""Deployments as they are now: where they wait, what their rights allow, and how they end."""
