"""Multi-label images: every method on the shipped openclipart set, the sweep of options, the search of a setting."""
