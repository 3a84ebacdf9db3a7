"""Model calls: types, HTTP, retry, limits, the ledger, the demo model server."""
