"""What `./techtree` does on first use: the virtual environment `.venv` of a clone (standard library only)."""
