"""The figures to touch: a script for each, and its data, computed by the lesson's own NumPy."""
