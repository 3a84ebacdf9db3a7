"""The command line against servers that others wrote: `make test-servers`."""
