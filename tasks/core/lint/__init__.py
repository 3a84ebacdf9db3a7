"""Preference lint: what a dataset should be looked at for before anybody trains on it."""
