"""Weight files of names, shapes and numbers: checked before they are believed, mapped instead of read."""

from .safetensors import load_file, read_metadata, save_file

__all__ = ["load_file", "read_metadata", "save_file"]
