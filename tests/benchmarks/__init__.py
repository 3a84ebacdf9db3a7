"""Measurements, never assertions."""
