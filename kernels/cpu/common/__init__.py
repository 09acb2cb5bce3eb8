"""What several mechanisms share: epilogue, activations, padded rows, lines of transforms."""
