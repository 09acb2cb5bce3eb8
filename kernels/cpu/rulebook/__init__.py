"""Rulebooks on the CPU: which rows of a sparse tensor meet, from sorted keys."""
