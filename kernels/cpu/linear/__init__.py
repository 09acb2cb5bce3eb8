"""Dense layers of few rows, whose weights are read where they lie."""
