"""The brokers that the bus suite runs over."""
