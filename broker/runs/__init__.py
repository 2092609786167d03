"""Records of runs: hashes, checks, the origin of each figure, and comparisons.  Pure."""
