"""`report.html`: what is in a dataset, how it came about and what it cost, as one page to look at."""
