"""Tests of the Hugging Face Hub: a server of its own, a dataset on the way there, its card."""
