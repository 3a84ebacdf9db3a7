"""The rows of datasets, read and written: one reader and one writer of each form."""
