"""Where samples are kept: one port, and one adapter a product."""
