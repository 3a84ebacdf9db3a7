"""The session folder: a projection of what the ledger holds."""
