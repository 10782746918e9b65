"""What both trainers share: group weights in a `transformers` training loop, checkpoints, publishing, progress."""
