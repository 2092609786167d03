"""Stores batches from the bus, keeps the ledger of what arrived, and sends marks."""
