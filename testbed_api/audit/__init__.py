"""The audit journal, its signed anchors, and the counting of reads."""
