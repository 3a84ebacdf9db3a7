"""Tests of `tasks.core.exchange`."""
