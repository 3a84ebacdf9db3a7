"""A run in a process of its own: settings, signals, the embedded server, exit codes."""
