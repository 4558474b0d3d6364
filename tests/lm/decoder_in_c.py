"""Whether the decoder in C can be made on this machine; tests that need it are skipped where it cannot."""

import pytest

from techtree.lm.native.library import NoCompilerError, library


def _why_not() -> str:
    try:
        library()
    except NoCompilerError as error:
        return str(error)
    return ""


_WHY_NOT = _why_not()
needs_decoder = pytest.mark.skipif(bool(_WHY_NOT), reason=f"needs the decoder in C: {_WHY_NOT}")
