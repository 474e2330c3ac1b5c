"""Text from records, escaped for the forms that a report has.

Names, settings and notes are texts of anyone. Each form has characters that mean something in it;
in every form control characters are escaped and long texts cut.
"""

from __future__ import annotations

import html
import re

from alignrec_recbole.errors import printable

LIMIT = 1200  # characters of one text in a table
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # with their wide forms


def plain(text: str, limit: int = LIMIT) -> str:
    r"""One printable line, for terminals and as the first step of every other form.

    >>> plain("a\x1b[31m b\nc")
    'a\\x1b[31m b c'
    """
    return printable(text, limit).replace("\n", " ")


def as_html(text: str) -> str:
    """Text between tags or in an attribute.

    >>> as_html('<b "x">')
    '&lt;b &quot;x&quot;&gt;'
    """
    return html.escape(plain(text))


def as_markdown(text: str) -> str:
    r"""Text in a cell, a heading or a paragraph of GitHub's Markdown.

    Escaped is what would be markup where it stands; others stay, as in "[0.1, 1]" and "p < 0.05".

    >>> print(as_markdown("a|b `c` <img> [x](y) *z* p < 0.05 in [1, 2]"))
    a\|b \`c\` \<img> [x\](y) \*z\* p < 0.05 in [1, 2]
    """
    return _MARKDOWN.sub(r"\\\g<0>", plain(text))


_MARKDOWN = re.compile(
    r"[\\|`*~]"  # everywhere
    r"|<(?=[A-Za-z/!?])"  # a tag
    r"|&(?=#|\w+;)"  # an entity
    r"|\](?=[(\[:])"  # the end of a link's text
    r"|(?<!\w)_|_(?!\w)"  # emphasis; inside a word it is none
)


def as_latex(text: str) -> str:
    r"""Text in a cell or a caption.

    >>> print(as_latex("a^2~b & 5 % of $x_1 {y} \\z"))
    a\textasciicircum{}2\textasciitilde{}b \& 5 \% of \$x\_1 \{y\} \textbackslash{}z
    >>> print(as_latex("[x]"))  # after the end of a row a bracket or a star would be an argument
    {[}x]
    """
    escaped = "".join(_LATEX.get(letter, letter) for letter in plain(text))
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "—": "---",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
} | {letter: f"\\{letter}" for letter in "&%$#_{}"}


def as_csv(text: str) -> str:
    """Text of a cell; what a spreadsheet would take for a formula gets an apostrophe in front.

    >>> as_csv("=1+1"), as_csv("BPR")
    ("'=1+1", 'BPR')
    """
    shown = plain(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def as_label(text: str) -> str:
    """Text in a figure; matplotlib leaves texts with a leading underscore out of legends."""
    shown = plain(text, 120)
    return f" {shown}" if shown.startswith("_") else shown
