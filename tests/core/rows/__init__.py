"""Tests of `tasks.core.rows`."""
