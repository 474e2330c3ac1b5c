"""What the files of a report must be, whatever records say: well-formed, without foreign code."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

from alignrec_recbole.errors import printable

TAGS = """html head meta title link body a header main footer nav ul ol li sup img h1 h2 h3 p div
section details summary figure figcaption table caption thead tbody tr th td strong u span dl dt dd
pre code script"""
SVG = "svg polyline line circle defs g path text tspan use style clippath rect title desc"
OF_MATPLOTLIB = "metadata rdf work type date format creator agent"
HREF = re.compile(
    r"#|data:,$|(\.\./)?figures/[^/]+\.(svg|csv)$"
    r"|(\.\./)?((runs|data|audits|files|assets)/)?[\w.+-]+\.(html|json|csv|tex|css|js)$"
)
FORMULAS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
COMMANDS = re.compile(
    r"^% needs .*$|\\label\{tab:[a-z0-9-]+\}|\\footnotesize\\setlength\{\\tabcolsep\}\{2pt\}"
    r"|\\begin\{tabularx\}\{\\textwidth\}\{@\{\}(?:r|>\{\\raggedright\\arraybackslash\}X)+@\{\}\}"
    r"|\\end\{tabularx\}|\\allowbreak\{\}|\\textsuperscript\{\*\}|\\,|\{\\tiny\$\\pm\$\\,[\d.]+\}"
    r"|\\(?:begin|end)\{(?:table|tabular)\}|\\(?:toprule|midrule|bottomrule|caption|textbf|underline)"
    r"|\\par\{\\footnotesize (?=\\textsuperscript)|\\textsuperscript\{\\textdaggerdbl\}"
    r"|\\text(?:backslash|asciitilde|asciicircum|bar)\{\}|\\\\(?=\n)|\\[&%$#_{}]"
    r"|\$(?:\\pm|-|<|>|\\geq|\\leq)\$",
    re.MULTILINE,
)


class Page(HTMLParser):
    """Checks tags, attributes and links while it reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in f"{TAGS} {SVG}".split(), tag
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag  # the pages' policy refuses it
            if name in ("href", "src", "xlink:href"):
                assert HREF.match(value or ""), value
            if name == "id":
                self.ids.append(value or "")


def check_html(text: str, scripts: int) -> None:
    assert Page(text).scripts == scripts
    check_plain(text)


def check_plain(text: str) -> None:
    """No control characters."""
    for line in text.split("\n"):
        assert printable(line, len(line)) == line, repr(line[:200])


def check_csv(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        if cell.lstrip().startswith(FORMULAS):
            float(cell)
    check_plain(text)


def check_latex(text: str) -> None:
    rest = COMMANDS.sub("", text)
    assert "\\" not in rest, rest
    assert not set("~^#$%") & set(rest), rest
    depth = 0
    for letter in rest:
        depth += (letter == "{") - (letter == "}")
        assert depth in (0, 1, 2), rest
    assert depth == 0
    assert not re.search(r"(\\\\|rule)\s*\n[\[*]", text)
    check_plain(text)


def check_markdown(text: str) -> None:
    bare = re.sub(r"\\[\\|`*~<&\]_]", "\u00b7", text)  # a dot for what is escaped
    assert "`" not in bare
    assert "](" not in bare
    assert not re.search(r"<(?!/?u>)[A-Za-z/!?]", bare), bare
    assert not re.search(r"&(#|\w+;)", bare)
    columns = 0
    for line in bare.split("\n"):
        pipes = line.count("|")
        columns = 0 if not pipes else columns or pipes
        assert pipes == columns, line
    check_plain(text)


def check_svg(text: str) -> None:
    for element in ET.fromstring(text).iter():
        tag = element.tag.rpartition("}")[2].lower()
        assert tag in f"{SVG} {OF_MATPLOTLIB}".split(), tag
        assert not any(name.startswith("on") for name in element.attrib)
    assert "mathdefault" not in text
    check_plain(text)


def check_files(folder: Path) -> int:
    """Check every file under a folder by its form; returns their number."""
    checks = {
        ".csv": check_csv,
        ".tex": check_latex,
        ".md": check_markdown,
        ".svg": check_svg,
        ".json": json.loads,
    }
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if path.suffix in (".pdf", ".png", ".css", ".js"):
            continue
        text = path.read_text("utf-8")
        if path.suffix == ".html":
            check_html(text, scripts=int("site" in path.parts))
        else:
            checks[path.suffix](text)
    return len(files)
