"""Everything that does not need Prefect."""
