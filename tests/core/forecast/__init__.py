"""Tests of `tasks.core.forecast`."""
