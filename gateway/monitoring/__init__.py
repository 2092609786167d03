"""Health, counters and metrics of a running gateway."""
