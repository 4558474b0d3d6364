"""Everything between `import numpy` and a working coding assistant, as a tree of technologies."""

__version__ = "0.1.0"
