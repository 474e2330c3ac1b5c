"""One idea of a number in every YAML file: 1e-5 is one, as in RecBole."""

import re
from pathlib import Path

import pytest

from alignrec_recbole.errors import SettingError
from alignrec_recbole.io import yaml_loader
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.suites.schema import read_suite


def test_numbers_with_an_exponent(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: [1e-4, 1.5e4, -2E-3, .5e1, 1.0e-4]\nb: e5\nc: 1e\nd: '1e-4'\n")
    assert read_yaml(path) == {
        "a": [0.0001, 15000.0, -0.002, 5.0, 0.0001], "b": "e5", "c": "1e", "d": "1e-4",
    }  # fmt: skip


def test_a_suite_may_write_small_numbers_naturally(tmp_path: Path) -> None:
    rows = []
    for number in ("1e-5", "0.00001"):
        path = tmp_path / "s.yaml"
        path.write_text(
            f"cells: [{{models: [BPR], datasets: [d], grid: {{reg_weight: [{number}]}}}}]\n"
        )
        rows.append([cell.stem for cell in read_suite(str(path)).expanded])
    assert rows[0] == rows[1]


def test_no_number_of_ours_is_read_as_text() -> None:
    """A value such as 1e-4 that came out as a string would reach a model as one."""

    def strings(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from strings(inner)
        elif isinstance(value, str):
            yield value

    for path in properties_dir().rglob("*.yaml"):
        for text in strings(read_yaml(path)):
            with pytest.raises(ValueError, match="could not convert"):
                float(text)


@pytest.mark.parametrize(("text", "says"), [("a: [", "not valid YAML"), ("- a", "not a mapping")])
def test_what_is_no_mapping_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingError, match=says):
        read_yaml(tmp_path / "a.yaml")


def test_nothing_reads_yaml_in_another_way() -> None:
    """A second loader would have a second idea of a number."""
    root = Path(yaml_loader.__file__).parents[2]
    readers = [
        str(path.relative_to(root))
        for folder in ("alignrec_recbole", "benchmarks")
        for path in (root / folder).rglob("*.py")
        if re.search(r"\byaml\.(safe_|full_|unsafe_)?load", path.read_text("utf-8"))
    ]
    assert readers == ["alignrec_recbole/io/yaml_loader.py"]
