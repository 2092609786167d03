"""The mapping file: which node or topic becomes which signal of which stream."""
