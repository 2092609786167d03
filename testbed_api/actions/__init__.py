"""Acts of people and machines on the registry: the rules of each, and its change."""
