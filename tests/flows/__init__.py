"""End-to-end tests through Prefect."""
