"""Tokens to text while they come: a character is handed on only when all of its bytes are there."""

from techtree.lm.tokenizer import Tokenizer


class TextStream:
    """The text of a growing row of tokens.

    A token of a byte-level tokenizer may end within a character. Its bytes are held back until the next
    token completes them; those that nothing completes are never shown.

    Parameters
    ----------
    tokenizer
        Whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._held = b""
        self.text = ""
        self.is_broken = False

    def push(self, token: int) -> str:
        """Add a token and return the characters that it completes.

        Bytes that can never become UTF-8 set `is_broken`; they and all that follow are dropped, because
        a file that is UTF-8 must stay so. So does an id that means no bytes at all, which a model may have
        beyond those of its tokenizer, or a tokenizer among its own.
        """
        if self.is_broken:
            return ""
        if not self._tokenizer.has_bytes(token):
            self.is_broken = True
            return ""
        data = self._held + self._tokenizer.decode_bytes([token])
        try:
            piece, self._held = data.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            # Only bytes at the very end can still be completed.
            self.is_broken = error.end < len(data) or error.reason != "unexpected end of data"
            piece, self._held = data[: error.start].decode("utf-8"), data[error.start :]
        self.text += piece
        return piece
