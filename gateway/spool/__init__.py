"""The batches on disk that the recorder has not yet marked as stored."""
