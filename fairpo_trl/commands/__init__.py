"""The command line: `fairpo generation`, `classification`, `check`, `evaluate` and `push`."""
