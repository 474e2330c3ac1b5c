"""YAML read safely and with RecBole's idea of a number: 1e-4 and 1.5e4 are numbers.

A text is bounded in size, in nesting and in the values that its aliases repeat, before any of them
is built. Dates are text, and tags are refused: values are numbers, texts, true, false, null, lists
and mappings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.opening import is_regular_file, read_text

MAX_BYTES = 4 << 20  # of a file
MAX_DEPTH = 64  # lists and mappings inside one another
MAX_VALUES = 100_000  # after every alias is replaced by what it names

_PACKAGE = Path(__file__).resolve().parents[1]
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # by libyaml, where PyYAML has it


class _Loader(_Safe):
    """SafeLoader of plain values: no dates, bytes, sets or objects, and no key twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (pyyaml's own form)
        first: [
            (tag, pattern)
            for tag, pattern in pairs
            if tag.rpartition(":")[2] in (*_PLAIN, "merge") and tag.rpartition(":")[2] != "str"
        ]
        for first, pairs in _Safe.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in _Safe.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _PLAIN
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        """A mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text denotes.

    >>> parse_yaml("[1e-4, 1.5e4, -2E3, .5e1]"), parse_yaml("1e-4x"), parse_yaml("e5")
    ([0.0001, 15000.0, -2000.0, 5.0], '1e-4x', 'e5')
    >>> parse_yaml("2020-01-31")
    '2020-01-31'

    Raises:
        yaml.YAMLError: it is not YAML, or beyond the bounds above.
    """
    _check_bounds(text)
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def _check_bounds(text: str) -> None:
    """Refuse text whose values nest too deep or, with aliases expanded, are too many.

    Only events are looked at: nothing is built, and no function calls itself.
    """
    open_: list[tuple[str | None, int]] = []  # anchor, and how many values came before it
    sizes: dict[str, int | None] = {}  # anchor → values; None: not ended, so it contains itself
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)
            if size is None:
                raise yaml.YAMLError(f"the value of &{event.anchor} contains itself")
            count += size
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.anchor:
                sizes[event.anchor] = None
            open_.append((event.anchor, count))
            count += 1
            if len(open_) > MAX_DEPTH:
                raise yaml.YAMLError(f"lists or mappings are nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if count > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values, aliases included")


def properties_dir() -> Path:
    """Folder of the YAML defaults: inside the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "properties"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "properties"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file; empty if the file is missing or empty.

    Raises:
        SettingError: the file is not YAML, no mapping, no regular file or beyond the bounds above.
    """
    if not is_regular_file(path) and not path.is_symlink() and not path.exists():
        return {}
    text = read_text(path, what="YAML file", error=SettingError, max_bytes=MAX_BYTES)
    try:
        values = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        raise SettingError(f"{path.name} is not valid YAML.", found=str(error)) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingError(
            f"{path.name} is not a mapping of names.",
            found=type(values).__name__,
            expected="lines of key: value",
        )
    return values
