"""Tests of `tasks.core.chat`."""
