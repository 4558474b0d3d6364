"""A description taken apart, and mathematics and code made HTML."""

import ast
import html
import re

import pytest
from fontTools.ttLib import TTFont

from techtree.errors import InputError
from techtree.site import content, docstring, font, highlight, markup

PAGE = """\
# Title

Lead with $x$.

## What we measured

![Errors by size](figure.svg)

Text. `code`

```python
## no heading
```

## Why it works

Rare wombats.

## Three questions

1. Why so?
   <details><summary>Answer</summary>Because
   of *it*.</details>
2. What of wombats?
   <details><summary>Answer</summary>They are rare.</details>
3. Third?
   <details><summary>Answer</summary>Errors by size, measured.</details>
"""


def test_a_description_is_taken_apart():
    lesson = content.parse_lesson(PAGE)
    assert (lesson.title, lesson.lead, lesson.figure) == ("Title", "Lead with $x$.\n", "Errors by size")
    assert [s.title for s in lesson.sections] == ["What we measured", "Why it works"]
    assert "## no heading" in lesson.sections[0].text
    assert "figure.svg" not in lesson.sections[0].text
    assert [(q.text, q.answer) for q in lesson.questions[:2]] == [
        ("Why so?", "Because of *it*."),
        ("What of wombats?", "They are rare."),
    ]
    assert lesson.questions[1].after == "Why it works"


def test_every_lesson_has_three_questions_with_answers(tree):
    for tech in tree.written:
        lesson = content.read_lesson(tech)
        if lesson is not None and lesson.questions:
            assert [bool(q.text and q.answer and q.after) for q in lesson.questions] == [True] * 3, tech.id


def test_every_formula_of_all_lessons_is_rendered(tree):
    n_formulas = 0
    for tech in tree.written:
        lesson = content.read_lesson(tech)
        for section in lesson.sections if lesson else ():
            n_formulas += str(markup.markdown(section.text)).count("<math")
    assert n_formulas > 500


@pytest.mark.parametrize("formula", [r"$\nosuchcommand x$", r"$\frac{1$", r"$$\substack{a \\ b}$$"])
def test_a_formula_that_cannot_be_rendered_is_an_error(formula):
    with pytest.raises(InputError, match="the formula"):
        markup.markdown(formula)


def test_spaces_of_formulas_become_classes():
    assert 'class="pulled"' in markup.math(r"\mathrm{f}\!\left( x \right)")
    cases = markup.math(r"\begin{cases} a & b \\ c & d \end{cases}")
    assert 'class="left' in cases
    assert " style=" not in cases


def test_html_in_markdown_is_shown_and_not_obeyed():
    assert "<script>" not in markup.markdown("a <script>alert(1)</script>")
    assert "&lt;b&gt;" in markup.markdown("`<b>`")


def test_links_between_lessons_become_links_between_pages():
    assert 'href="positions.html"' in markup.markdown("[p](../positions/README.md)")
    assert 'href="sgd.html#the-math"' in markup.markdown("[s](../../training/sgd/README.md#the-math)")
    assert 'href="https://example.org"' in markup.markdown("[e](https://example.org)")


def test_a_formula_that_goes_on_with_a_minus_is_no_list(tree):
    shown = markup.markdown("The sum is $1\n- x$, and\n\n- an entry\n")
    assert shown.count("<math") == 1
    assert shown.count("<li>") == 1
    for tech in tree.written:
        lesson = content.read_lesson(tech)
        for section in lesson.sections if lesson else ():
            words = re.sub(
                r"<pre.*?</pre>|<code>.*?</code>", "", markup.markdown(section.text), flags=re.DOTALL
            )
            assert "$" not in words, (tech.id, section.title)


def test_a_sentence_that_goes_on_with_a_number_is_no_list(tree):
    assert "<li>" not in markup.markdown("Through one worker it is N -\n1. In the ring\nit is\n- less.\n")
    assert markup.markdown("Lists:\n\n- one\nmore\n- two\n\n1. three\n2. four\n").count("<li>") == 4
    measured = next(
        s for s in content.read_lesson(tree["data_parallel"]).sections if s.title == content.MEASURED
    )
    assert "<ol>" not in markup.markdown(measured.text)


def test_a_line_does_not_begin_with_the_comma_of_a_formula():
    shown = markup.markdown("Let $x$, ($y$) and $z$ be.\n\n$$a,$$\n")
    tied = re.findall(r'<span class="tied">(.*?)</span>', shown)
    assert [re.sub(r"<[^>]*>", "", each) for each in tied] == ["x,", "(y)"]


def test_money_is_no_mathematics():
    assert "<math" not in markup.markdown("It costs $5 and $6.")


def test_no_character_of_code_is_lost(tree):
    for tech in tree.written:
        source = tech.implementation.read_text(encoding="utf-8")
        shown = html.unescape(re.sub(r"<[^>]+>", "", highlight.highlighted(source)))
        assert shown == source.strip("\n")


def test_pieces_are_the_module_without_its_docstrings(tree):
    for tech in tree.written:
        source = tech.implementation.read_text(encoding="utf-8")
        joined = "\n".join(piece.source for piece in docstring.pieces(source))
        expected = [line for line in _without_docstrings(source) if line.strip()]
        assert [line for line in joined.splitlines() if line.strip()] == expected, tech.id


def _without_docstrings(source: str) -> list[str]:
    """Slowly: all lines but those of the docstrings that pieces take out."""
    lines = source.splitlines()
    taken = set()
    module = ast.parse(source)
    owners = [module, *(n for n in module.body if isinstance(n, ast.FunctionDef | ast.ClassDef))]
    owners += [
        m
        for n in module.body
        if isinstance(n, ast.ClassDef)
        for m in n.body
        if isinstance(m, ast.FunctionDef)
    ]
    for owner in owners:
        if ast.get_docstring(owner):
            first = owner.body[0]
            taken |= set(range(first.lineno - 1, first.end_lineno))
    return [line for number, line in enumerate(lines) if number not in taken]


def test_a_docstring_is_shown_in_its_parts():
    shown = docstring.docstring_html(
        "Add ``a`` and <b>.\n\nParameters\n----------\na, b\n    Finite.\n\n"
        "Returns\n-------\nfloat\n    Sum.\n\n"
        "Examples\n--------\n>>> add(1, 2)\n3"
    )
    assert "<code>a</code> and &lt;b&gt;" in shown
    assert "<dt><code>a, b</code></dt><dd>Finite.</dd>" in shown
    assert '<p class="head">Examples</p><pre' in shown


def test_a_list_and_more_of_a_meaning_in_a_docstring():
    shown = docstring.docstring_html(
        "Check.\n\nParameters\n----------\n"
        "x\n    One of these.\n\n    - ``a``, or\n      what follows;\n    - b.\n\n"
        "Returns\n-------\nfloat"
    )
    assert '<div class="more"><ul><li><code>a</code>, or what follows;</li><li>b.</li></ul></div>' in shown
    assert "<dl><dt><code>float</code></dt><dd></dd></dl>" in shown


def test_mistakes_are_sentences(tree):
    for tech in tree.written:
        if tech.file("variants.py").is_file():
            assert len(content.mistakes(tech)) >= 20, tech.id


def test_the_font_has_every_character_of_the_formulas(tree):
    """After a change: python -m techtree.site.font with the whole font."""
    with TTFont(font.FONT) as file:
        known = set(file.getBestCmap())
        assert "MATH" in file
    assert sorted(c for c in font.characters(tree) if ord(c) not in known) == []


def test_a_prime_is_not_raised_twice():
    assert "<msup>" not in markup.math("a' + b")
    assert "<msup>" in markup.math("e^{b}")
    assert "′" in markup.math("f'_i")
