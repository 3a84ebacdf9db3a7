"""Tests of `tasks.core.config`."""
