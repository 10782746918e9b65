"""Published preference data -> canonical rows: one module per data set, pure functions of the published rows."""
