"""mkdocs hook: fills the `<!-- generated: NAME -->` places of the pages from the source.

Modules are parsed, not imported, except the registry and the command line; neither needs RecBole.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from alignrec_recbole.audit.report import Check
    from alignrec_recbole.data.cards import DatasetCard

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "alignrec_recbole"
PLOTS = "results/shipped/plots"
PLACE = re.compile(r"<!-- generated: ([\w-]+) -->")
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def docstring(path: Path) -> str:
    """The docstring of a module's file."""
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def markdown(text: str) -> str:
    """A docstring as Markdown: indented paragraphs are code, hanging ones definitions."""
    out: list[str] = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        if all(line.startswith("    ") for line in lines):
            out.append("```text\n" + "\n".join(line[4:] for line in lines) + "\n```")
        elif any(line.startswith("    ") for line in lines):
            out.append(_definitions(lines))
        else:
            out.append(paragraph)
    return "\n\n".join(out)


def _definitions(lines: list[str]) -> str:
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("    ") and entries:
            entries[-1][1].append(line.strip())
        else:
            entries.append((line, []))
    return "\n".join(f"- **{term}**: {' '.join(words)}" for term, words in entries)


def _untitled(text: str) -> str:
    """A docstring without the name that its first line begins with."""
    _, colon, rest = text.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else text


def protocols() -> str:
    """Every protocol's question and definition, then what the training-free ones share."""
    from alignrec_recbole.protocols import PROTOCOLS

    parts = []
    for name, protocol in PROTOCOLS.items():
        path = ROOT / (protocol.module.replace(".", "/") + ".py")
        definition = markdown(_untitled(docstring(path)))
        parts.append(f"## {name}\n\n{definition}\n\nTrains: {protocol.trains}.")
    shared = markdown(docstring(PACKAGE / "protocols" / "content.py"))
    return "\n\n".join([*parts, f"## What the training-free protocols share\n\n{shared}"])


def models() -> str:
    """A table of this package's models, then each one's header and defaults."""
    from alignrec_recbole.registry.models import MODELS

    rows = ["| model | features | what it is |", "|---|---|---|"]
    parts = []
    for entry in MODELS.values():
        module = entry.target.partition(":")[0]
        path = ROOT / (module.replace(".", "/") + ".py")
        needs = "needed" if entry.needs_features else "none"
        defaults = ROOT / "properties" / "model" / f"{entry.name}.yaml"
        if not path.exists():
            rows.append(f"| {entry.name} | {needs} | RecBole's own |")
            continue
        first, _, rest = docstring(path).partition("\n\n")
        what = _untitled(" ".join(first.split()))
        rows.append(f"| [{entry.name}](#{entry.name.lower()}) | {needs} | {what} |")
        part = f"## {entry.name}\n\n{what}\n\n```text\n{rest}\n```"
        if defaults.exists():
            part += f"\n\nDefaults:\n\n```yaml\n{defaults.read_text('utf-8').rstrip()}\n```"
        parts.append(part)
    return "\n".join(rows) + "\n\n" + "\n\n".join(parts)


def layers() -> str:
    """The import contract of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = text[text.index("layers = [") :]
    names = re.findall(r'"([^"]+)"', found[: found.index("\n]")])
    return "```text\n" + "\n".join(names) + "\n```"


def commands() -> str:
    """The help of the program and of each verb."""
    import click

    from alignrec_recbole.cli.main import program

    def text(command: click.Command, parent: click.Context | None, name: str) -> str:
        context = command.context_class(
            command, parent, info_name=name, terminal_width=96, max_content_width=96
        )
        return f"```text\n{command.get_help(context)}\n```"

    top = program.context_class(program, info_name="run_benchmark.py")
    parts = [text(program, None, "run_benchmark.py")]
    for name in program.list_commands(top):
        verb = program.get_command(top, name)
        if verb is not None and not verb.hidden:
            parts.append(f"## {name}\n\n{text(verb, top, name)}")
    return "\n\n".join(parts)


def datasets() -> str:
    """The cards of the registered data sets."""
    from alignrec_recbole.data.cards import read_card
    from alignrec_recbole.data.dataset_paths import dataset_defaults, registered_datasets

    parts = []
    for name in registered_datasets():
        facts, card = dataset_defaults(name), read_card(name)
        if card is None:
            continue
        expected, downloads = facts.get("expected", {}), facts.get("downloads", [])
        counts = [f"{expected[key]:,} {key}" for key in ("users", "items") if key in expected]
        if "interactions" in expected:
            parts_of_split = " / ".join(f"{count:,}" for count in expected["interactions"])
            counts.append(f"{parts_of_split} interactions (training / validation / test)")
        hashes = [f"`{file}`: SHA-256 `{sha}`" for file, sha in card.sha256.items()]
        hashes += [
            f"`{file['file']}`: {kind} `{file[key]}`"
            for file in downloads
            for key, kind in (("git_blob", "git object"), ("sha256", "SHA-256"))
            if key in file
        ]
        if card.split_sha256:
            hashes.append(f"the split: SHA-256 `{card.split_sha256}`")
        leaks = [f"**{leak}**: {words}" for leak, words in (card.leaks or {}).items()]
        rows = [
            ("source", f"{card.source}: <{card.address}>"),
            ("licence", card.licence),
            ("counts", ", ".join(counts)),
            ("split", card.split),
            ("numbers", card.numbers),
            ("hashes", "<br>".join(hashes) or "none known"),
            ("known leaks", "<br>".join(leaks) or card.leaks_in_short),
            ("audit", audited(card)),
        ]
        table = "\n".join(f"| {key} | {words} |" for key, words in rows)
        parts.append(f"## {name}\n\n| | |\n|---|---|\n{table}")
    return "\n\n".join(parts)


def audited(card: DatasetCard) -> str:
    """The verdict of a card's audit, and the checks that are not clean."""
    if card.audit is None:
        return "not audited"
    checks = [f"{name}: {verdict}" for name, verdict in card.audit.not_clean.items()]
    return f"**{card.audit.verdict}**" + (f" ({', '.join(checks)})" if checks else "")


def audit_checks() -> str:
    """The declared checks of an audit, by group."""
    from alignrec_recbole.audit.registry import CHECKS
    from alignrec_recbole.audit.report import GROUPS

    parts = []
    for group in GROUPS:
        checks = [check for check in CHECKS if check.group == group]
        if not checks:
            continue
        parts.append(f"### {group.capitalize()}")
        for check in checks:
            lines = [
                f"**`{check.name}`**: {check.question}",
                f"- figure: {check.metric}. {check.method}",
                f"- rule: {check.rule}",
                f"- remedy: {check.remedy}",
            ]
            parts.append("\n".join([lines[0], "", *lines[1:]]))
    return "\n\n".join(parts)


def audits() -> str:
    """The figures of the committed audits, figure and control, one column per data set.

    Audits of features have a table of their own with the checks of features alone.
    """
    from alignrec_recbole.audit.report import read_audits

    reports = [report for _, report in read_audits(ROOT / "results" / "shipped" / "audit")]
    data = {report.dataset: report.checks for report in reports if not report.features}
    features = {
        f"{report.dataset}, {name}": [c for c in report.checks if c.subject == name]
        for report in reports
        for name in report.features
    }
    tables = [_audit_table(columns) for columns in (data, features) if columns]
    return "\n\n".join(tables) + "\n\nFigure, in brackets its control."


def _audit_table(columns: dict[str, list[Check]]) -> str:
    """A row per check."""
    names = list(dict.fromkeys(check.name for checks in columns.values() for check in checks))
    rows = ["| check | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = []
        for checks in columns.values():
            found = next((check for check in checks if check.name == name), None)
            cells.append("not checked" if found is None else _audit_cell(found))
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _audit_cell(check: Check) -> str:
    control = "" if check.control is None else f" ({check.control:.4f})"
    figure = "" if check.value is None else f"{check.value:.4f}"
    verdict = "" if check.verdict == "clean" else f" **{check.verdict}**"
    return f"{figure}{control}{verdict}"


def encoders() -> str:
    """The registry of encoders."""
    from alignrec_recbole.encoders.registry import ENCODERS

    rows = ["| encoder | modality | width | extra | licence | downloads | rows |", "|---" * 7 + "|"]
    for entry in ENCODERS.values():
        extra = f"`{entry.extra}`" if entry.extra else "none"
        about = [entry.modality, entry.width, extra, entry.licence, entry.downloads]
        rows.append(f"| `{entry.syntax}` | {' | '.join(about)} | {entry.description} |")
    return "\n".join(rows)


def recbole_settings() -> str:
    """RecBole's settings: what reads each, or why it is refused."""
    from alignrec_recbole.training.recbole_settings import HONOURED, REFUSED, RecBoleSettings
    from alignrec_recbole.training.settings import TrainingSettings

    fields = {**TrainingSettings.model_fields, **RecBoleSettings.model_fields}
    rows = ["| setting | values | read by |", "|---|---|---|"]
    rows += [f"| `{key}` | {fields[key].description} | {by} |" for key, by in HONOURED.items()]
    refused = ["| refused setting | why |", "|---|---|"]
    refused += [f"| `{key}` | {why} |" for key, why in REFUSED.items()]
    return "\n".join(rows) + "\n\n" + "\n".join(refused)


PARTS: dict[str, Callable[[], str]] = {
    "audit-checks": audit_checks,
    "audits": audits,
    "commands": commands,
    "datasets": datasets,
    "encoders": encoders,
    "layers": layers,
    "models": models,
    "protocols": protocols,
    "recbole-settings": recbole_settings,
}


def on_page_markdown(text: str, **_: object) -> str:
    """mkdocs calls this with each page's Markdown."""
    text = text.replace(f"../{PLOTS}/", "plots/")
    return PLACE.sub(lambda match: PARTS[match[1]](), text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the committed figures, which are not among the pages."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / PLOTS).glob("*.png")):
        files.append(File.generated(config, f"plots/{path.name}", abs_src_path=str(path)))
    return files
