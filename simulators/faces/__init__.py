"""How a simulated machine is reached: one file a protocol."""
