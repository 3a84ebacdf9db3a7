"""Tests of `tasks.core.session`."""
