"""The demo model server: OpenAI's chat completions on the loopback interface, for demos and tests."""
