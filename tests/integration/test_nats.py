"""The embedded broker lets in whom we answer for, to what we answer, and nobody else."""
