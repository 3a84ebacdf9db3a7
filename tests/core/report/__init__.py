"""`tasks.core.report`."""
