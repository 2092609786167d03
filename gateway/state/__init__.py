"""The state of a gateway beside its mapping: where it lies, its identity, its source's password."""
