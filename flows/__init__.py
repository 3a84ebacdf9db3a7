"""Prefect flows and the command line: stages in order, nothing else."""
