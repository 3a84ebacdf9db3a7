"""What is asked of a model and what comes back: the words that ledger, traffic and chat share."""
