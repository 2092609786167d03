"""The time-series stores: one port, and one adapter per product."""
