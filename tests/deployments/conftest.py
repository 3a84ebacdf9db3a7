"""The fixtures of the flows' tests that are of use here."""

from __future__ import annotations

from tests.flows.conftest import demo_model, lone_user

__all__ = ["demo_model", "lone_user"]
