"""Tests of `tasks.core.portable`."""
