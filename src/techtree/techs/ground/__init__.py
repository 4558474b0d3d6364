"""Arrays, numbers that do not overflow, and a way to check a derivative."""
