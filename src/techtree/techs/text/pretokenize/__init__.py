"""UTF-8 bytes, and the pattern that cuts a text into words before tokens are learned."""

from .pretokenize import bytes_to_unicode, from_visible, split, visible

__all__ = ["bytes_to_unicode", "from_visible", "split", "visible"]
