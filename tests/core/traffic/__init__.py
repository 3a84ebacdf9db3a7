"""Tests of `tasks.core.traffic`."""
