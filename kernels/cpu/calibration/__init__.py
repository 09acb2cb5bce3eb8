"""What a machine does in a cycle and a second, measured: what a profile is made from."""
