"""Datasets that are there, made into others by the models: streamed, in order, over the same ledger."""
