"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# How long an example takes is the machine's business: no test asserts on speed.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# A shell starts what it puts in the background with SIGINT ignored, and so would be every process that a test
# starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
