"""The gateway's way to the testbed: admission, published batches with their marks, audit heads."""
