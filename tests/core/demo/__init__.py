"""Tests of `tasks.core.demo`."""
