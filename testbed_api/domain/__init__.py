"""The nouns of the registry and their rules: pure, and impossible to build wrong."""
