"""The comparisons behind the published figures: what was run, what came out, and the commands that repeat it."""
