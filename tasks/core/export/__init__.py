"""Export: the pairs of a session as the files that trainers take."""
