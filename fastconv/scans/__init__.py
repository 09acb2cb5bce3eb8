"""Point clouds: files that scanners and data sets come in, and a simulated sweep."""
