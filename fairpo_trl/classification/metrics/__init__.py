"""What a classifier is worth on a whole split: by group, by label, and against a reference."""
