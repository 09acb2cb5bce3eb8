"""What a launch costs: the roofline of a GPU, blocks and what they move, the forecast in full."""
