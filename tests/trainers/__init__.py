"""What is exported, taken by TRL's trainers: in an environment of their own, by `make test-trainers`."""
