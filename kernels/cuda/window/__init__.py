"""Direct and depthwise convolution on CUDA: one pixel a thread, weights in shared memory."""
