"""What compiled variants look like: their source, and the loops of their LLVM IR and assembly."""
