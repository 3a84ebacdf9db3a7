"""Prefect tasks, each a few lines over an operation of `tasks.core`."""
