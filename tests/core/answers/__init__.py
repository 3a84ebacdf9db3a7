"""Tests of `tasks.core.answers`."""
