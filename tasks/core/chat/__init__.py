"""A chat request on its way to a model, and the answer on its way back."""
