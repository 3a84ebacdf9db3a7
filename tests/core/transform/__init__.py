"""Tests of transform, which need no Prefect."""
