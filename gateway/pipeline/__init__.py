"""From samples to batches: filter, dead band, unique time stamps, batching."""
