"""How the flows are run elsewhere."""
