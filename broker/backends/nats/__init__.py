"""The NATS server as broker: process, storage limits, and the auth callout that admits clients."""
