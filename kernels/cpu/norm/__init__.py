"""Normalisations of dense arrays."""
