"""Tests of everything between a question and the answer that was paid for."""
