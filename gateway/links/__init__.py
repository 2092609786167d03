"""How a gateway reaches equipment: one file a protocol."""
