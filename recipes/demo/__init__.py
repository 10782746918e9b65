"""The FairPO demo: prompts, attribute scorers and preference pairs made with a small real language model."""
