"""From source files to the rows that training reads: collect, drop copies, split, cut, pack."""
