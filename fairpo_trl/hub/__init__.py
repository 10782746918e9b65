"""What leaves the machine: the one module that decides it, model cards, and pushes to the Hub."""
