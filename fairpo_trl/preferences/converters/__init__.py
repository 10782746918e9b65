"""
Published preference data -> canonical rows: one module per data set, pure functions of the published rows.

Each takes the rows and returns `Converted`: the pairs, and what was dropped for which reason. A row of another schema
is a `ValueError` that names it.
"""
