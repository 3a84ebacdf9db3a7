"""Tests of `tasks.core.generation`."""
