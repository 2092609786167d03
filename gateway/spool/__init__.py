"""The spool: stores batches on disk until the recorder has marked them as stored."""
