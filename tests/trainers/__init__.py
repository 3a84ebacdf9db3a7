"""What is exported, taken by the trainers it is for: in an environment of their own, by `make test-trainers`."""
