"""What the cost models know of a machine: one profile, and the formulas that turn it into time."""
