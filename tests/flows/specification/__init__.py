"""The user's specification of checkpoint and resume, row by row: each test is named after what it shows.

The specification is VellumForge2's own document "Checkpoint/Resume Implementation Summary", for which this
project was asked. `test_commands` goes through its command blocks, `test_key_features` through what it
claims besides, `test_edge_cases` through "Edge Cases Handled" and `test_troubleshooting` through
"Troubleshooting", in its order. Where this project does more than it says, the test's docstring says how.
"""
