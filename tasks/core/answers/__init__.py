"""What models answer, made into texts, lists and scores."""
