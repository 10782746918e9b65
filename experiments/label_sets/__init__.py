"""Label sets written by a language model: FairPO, its baselines, and the other half on the same items."""
