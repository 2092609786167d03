"""Recordings: immutable bundles of streams in Parquet, with a manifest and one hash over all."""
