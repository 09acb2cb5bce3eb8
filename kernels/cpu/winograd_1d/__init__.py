"""Winograd along the width alone: products meet in a register tile that transforms them back."""
