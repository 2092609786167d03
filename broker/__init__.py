"""The shared floor: the words every part speaks, and the way onto the bus."""
