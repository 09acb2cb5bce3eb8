"""What runs a kernel: compiler and disk cache, the pool of threads, plans, scratch memory."""
