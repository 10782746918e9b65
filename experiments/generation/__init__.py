"""Language models: FairPO, its baselines and ablations on the demo's model, data and batches."""
