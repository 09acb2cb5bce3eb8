"""Copies from any strides into any strides, and windows taken out and put back."""
