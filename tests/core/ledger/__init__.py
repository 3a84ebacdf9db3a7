"""Tests of `tasks.core.ledger`."""
