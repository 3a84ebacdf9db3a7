"""Prefect's own pages in a real browser."""
