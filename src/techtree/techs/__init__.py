"""Tower 1, the tree itself: a folder for each technology, NumPy only, explained, tested, graded."""
