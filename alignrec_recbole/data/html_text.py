"""Plain text of product descriptions that contain HTML."""

from __future__ import annotations

import html
import re
from typing import Any

INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|ins|kbd|label|mark|nobr|q|s|"
    "small|span|strike|strong|sub|sup|tt|u|wbr"
)  # elements within a line
BLOCK = (
    "address|area|article|aside|audio|base|blink|blockquote|body|br|button|"
    "canvas|caption|center|col|colgroup|dd|div|dl|dt|embed|fieldset|figcaption|"
    "figure|footer|form|frame|frameset|h1|h2|h3|h4|h5|h6|head|header|hr|"
    "html|iframe|img|input|legend|li|link|main|map|marquee|meta|nav|noscript|"
    "object|ol|optgroup|option|p|param|path|picture|pre|section|select|source|"
    "style|svg|script|table|tbody|td|textarea|tfoot|th|thead|title|tr|track|"
    "ul|video"
)  # the others
_UNSEEN = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.I | re.S)
_TAG = re.compile(rf"</?(?:({INLINE})|{BLOCK})(?:\s[^<>]*)?/?>", re.I)
_SCRIPT = re.compile(r"var aPageStart|getTime\(\)")


def plain_text(text: str) -> str:
    """The text without tags, comments, scripts and style sheets, entities decoded.

    Only names of HTML's elements make a tag: "a <b c" and "1 < 2 > 0" stay. Tags within a line
    leave no blank.

    >>> plain_text("Men&#39;s <b>l</b>amp<br/>warm<script>var x=1</script>1 &lt; 2 <3")
    "Men's lamp warm 1 < 2 <3"
    """
    text = html.unescape(text)
    if "<" not in text:
        return text
    text = _UNSEEN.sub(" ", text)
    return _TAG.sub(lambda match: "" if match.group(1) else " ", text)


def is_script(text: str) -> bool:
    """Whether a title is a script of the page it was taken from, as in the files of 2018.

    >>> is_script("var aPageStart = (new Date()).getTime();"), is_script("Lamp")
    (True, False)
    """
    return bool(_SCRIPT.search(text))


def one_line(value: Any) -> str:
    """One line of text: HTML removed, white space and control characters made spaces.

    Halves of a surrogate pair are joined; one alone, which UTF-8 does not have, is replaced.

    >>> one_line("Tom &amp; Jerry\\n\\t2"), one_line(None), one_line(["a", "b"])
    ('Tom & Jerry 2', '', 'a b')
    """
    if isinstance(value, list | tuple):
        value = " ".join(v for v in value if isinstance(v, str))
    if not isinstance(value, str):
        return ""
    value = plain_text(value).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value).split())
