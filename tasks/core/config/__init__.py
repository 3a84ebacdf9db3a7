"""The configuration: its models, where its values come from, and how its errors read.

`load` brings the values together, `settings` says what each may be, `values` what a single value must look
like, `rules` what several settings mean for each other, `problems` how it reads when something is wrong.
"""
