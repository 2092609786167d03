"""The brokers that this project can run by itself, one file a product."""
