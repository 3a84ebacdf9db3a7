"""Tests of `tasks.core.lint`."""
