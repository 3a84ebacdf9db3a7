"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is the machine's business: no test asserts on speed.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
