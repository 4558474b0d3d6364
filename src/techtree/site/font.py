"""The font of the formulas: STIX Two Math, cut down to the characters that the lessons use.

`python -m techtree.site.font FILE`, where the file is the whole font (STIX Two Math, by the STIX Fonts
Project), writes the part. A browser stretches brackets and places limits by a table in the font, and many
machines have no font with one. A test keeps the characters complete.
"""

import html
import re
import sys
from pathlib import Path

from techtree.site.content import read_lesson
from techtree.site.markup import markdown
from techtree.tree.graph import Tree, load_tree

FONT = Path(__file__).parent / "assets" / "fonts" / "stix-two-math.woff"

LETTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0x391, 0x3CA), 0x3D1, 0x3D5, 0x3F1, 0x3F5]))
"""What new lessons will use as well."""

ROOT_WIDTH = 830
"""Of a tall root sign, in thousandths of the font's size; the small one has 794."""

ROOT_GAP = 130
"""Between a formula in the text and the bar of its root; the font's own 85 let them touch on a screen."""

SIGNS = "±×÷·…′″←↑→↓⇒⇔∀∂∃∅∇∈∉∏∑−∘∙√∝∞∥∧∨∩∪∫≈≠≡≤≥≪≫⊂⊆⊕⊗⊙⊤⊥⋅⋮⋯⋱⌈⌉⌊⌋⟨⟩ℓℎℝℕℤℂ‖‾¯ˆ˜˙¨→←⏞⏟ "

_ITALIC_CAPITALS, _ITALIC_SMALL = 0x1D434, 0x1D44E
_ITALIC_GREEK = 0x1D6E2


def characters(tree: Tree) -> set[str]:
    """Return the characters that the formulas of all lessons show."""
    found: set[str] = set()
    for tech in tree.written:
        lesson = read_lesson(tech)
        if lesson is None:
            continue
        texts = [lesson.lead, *(s.text for s in lesson.sections)]
        texts += [part for q in lesson.questions for part in (q.text, q.answer)]
        for text in texts:
            for formula in re.findall(r"<math.*?</math>", str(markdown(text)), flags=re.DOTALL):
                found |= shown(formula)
    return found


def shown(formula: str) -> set[str]:
    """Return the characters that a browser shows for MathML: a letter alone becomes an italic one.

    >>> sorted(map(hex, map(ord, shown("<mi>t</mi><mi>exp</mi>"))))
    ['0x1d461', '0x65', '0x70', '0x78']
    """
    found: set[str] = set()
    for tag, attributes, text in re.findall(r"<(m[ions]|mtext)([^>]*)>([^<]*)<", formula):
        text = html.unescape(text)
        is_variable = tag == "mi" and len(text) == 1 and "mathvariant" not in attributes
        found |= {italic(text)} if is_variable else set(text)
    return found - set("\u2061\u2062\u2063\u2064\u00a0 ")


def italic(letter: str) -> str:
    """Return a letter's italic form, as mathematics sets variables.

    >>> italic("h"), hex(ord(italic("A"))), hex(ord(italic("α"))), italic("∞")
    ('ℎ', '0x1d434', '0x1d6fc', '∞')
    """
    if letter == "h":
        return "ℎ"
    if "A" <= letter <= "Z":
        return chr(_ITALIC_CAPITALS + ord(letter) - ord("A"))
    if "a" <= letter <= "z":
        return chr(_ITALIC_SMALL + ord(letter) - ord("a"))
    if "Α" <= letter <= "Ω":
        return chr(_ITALIC_GREEK + ord(letter) - ord("Α"))
    if "α" <= letter <= "ω":
        return chr(_ITALIC_GREEK + 26 + ord(letter) - ord("α"))
    others = {"∂": "𝜕", "ϵ": "𝜖", "ϑ": "𝜗", "ϕ": "𝜙", "ϱ": "𝜚", "ϖ": "𝜛"}
    return others.get(letter, letter)


def _narrow_roots(font) -> None:
    """Make the tall root signs about as wide as the small one.

    A browser leaves room for the widest before it knows which one it needs, and the rest stays as a gap.
    """
    from fontTools.pens.transformPen import TransformPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    table = font["MATH"].table
    table.MathConstants.RadicalVerticalGap.Value = ROOT_GAP
    place = table.MathVariants.VertGlyphCoverage.glyphs.index(font.getBestCmap()[ord("√")])
    root = table.MathVariants.VertGlyphConstruction[place]
    names = {record.VariantGlyph for record in root.MathGlyphVariantRecord}
    names |= {part.glyph for part in root.GlyphAssembly.PartRecords}
    glyphs = font.getGlyphSet()
    for name in sorted(names):
        width, bearing = font["hmtx"][name]
        share = min(ROOT_WIDTH / width, 1)
        pen = TTGlyphPen(glyphs)
        glyphs[name].draw(TransformPen(pen, (share, 0, 0, 1, 0, 0)))
        font["glyf"][name] = pen.glyph()
        font["hmtx"][name] = round(width * share), round(bearing * share)


def main(source: str) -> None:
    """Write the part of a font that the lessons need."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    font = TTFont(source)
    wanted = characters(load_tree()) | set(LETTERS + SIGNS)
    wanted |= {italic(letter) for letter in wanted}
    options = Options(layout_features=["*"], name_IDs=["*"], hinting=False)
    cutter = Subsetter(options)
    cutter.populate(text="".join(wanted))
    cutter.subset(font)
    _narrow_roots(font)
    FONT.parent.mkdir(parents=True, exist_ok=True)
    font.flavor = "woff"
    font.save(FONT)
    print(f"{FONT}: {len(wanted)} characters, {FONT.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
