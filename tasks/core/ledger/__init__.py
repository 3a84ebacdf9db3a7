"""The ledger: every answer that was paid for, durable before anything is done with it."""
