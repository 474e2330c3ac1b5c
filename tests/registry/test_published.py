"""Published settings: every file is valid, and a command line uses them as they are written."""

from __future__ import annotations

import pytest

from alignrec_recbole.cli._jobs import make_jobs
from alignrec_recbole.cli.run import parse
from alignrec_recbole.data.dataset_paths import dataset_defaults
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.yaml_loader import read_yaml
from alignrec_recbole.registry import published
from alignrec_recbole.registry.components import components
from alignrec_recbole.settings import nested, read_settings

ALL = [(m, d) for m in published.published_models() for d in published.published_of(m)]


@pytest.mark.parametrize(("model", "dataset"), ALL)
def test_the_settings_are_those_of_the_model_and_trainer(model, dataset):
    assert dataset_defaults(dataset), "the data set is registered"
    found, parts = published.published_settings(model, dataset), components(model)
    given = nested(found.settings.items(), {})
    assert given.keys() <= parts.keys_for(dataset)
    parts.check_unused(given)
    read_settings({**parts.defaults, **given}, parts.model_class.settings_class, model)


def test_a_command_line_has_them_below_its_own_settings():
    line = ["--model=DAMRS,GUME", "--dataset=sports"]
    first, second = make_jobs(parse([*line, "--config=published", "--set", "n_ui_layers=4"]))
    assert nested(first.pairs) == {
        **published.published_settings("DAMRS", "sports").settings, "n_ui_layers": 4
    }  # fmt: skip
    assert nested(first.pairs)["stopping_step"] == 20
    assert nested(second.pairs)["temperature"] == 0.2
    assert "log_files" in first.source
    assert make_jobs(parse(line))[0].source is None


def test_a_rekeyed_data_set_has_those_of_its_origin():
    found = published.published_settings("DAMRS", "baby-rekeyed-7")
    assert found == published.published_settings("DAMRS", "baby")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--model=DAMRS", "--dataset=lfm2k"], UnknownNameError, "one of baby, clothing, sports"),
        (["--model=Pop", "--dataset=baby"], UnknownNameError, "one of the models BM3, DAMRS"),
        (["--protocol=item-cf", "--dataset=baby"], SettingError, "train no model"),
    ],
)
def test_what_is_not_published_is_an_error(arguments, error, words):
    with pytest.raises(error, match=words):
        make_jobs(parse([*arguments, "--config=published"]))


def test_a_file_of_another_form_is_named(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    path = tmp_path / "published" / "DAMRS.yaml"
    path.write_text("baby: {settings: {knn_k: 3}}\n")
    monkeypatch.setattr(published, "properties_dir", lambda: tmp_path)
    assert read_yaml(path)
    with pytest.raises(SettingError, match=r"baby\.source: Field required"):
        published.published_settings("DAMRS", "baby")
