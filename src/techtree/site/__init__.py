"""The tree as pages: a static site that opens from the file system, and that `techtree serve` shows."""
