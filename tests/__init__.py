"""Tests: `core` needs no Prefect, `flows` is end to end."""
