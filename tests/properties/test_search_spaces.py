"""Search spaces are closed: a model of ours, its own settings, values that the settings accept."""

import pytest

from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry.components import components
from alignrec_recbole.training.settings import TrainingSettings

FILES = sorted((properties_dir() / "search").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_search_space_is_made_of_settings(path):
    parts = components(path.stem)
    assert parts.entry.family == "native"
    own = parts.model_class.settings_class
    defaults = parts.defaults_for("none")
    space = read_yaml(path)
    assert space, "an empty search space"
    for key, values in space.items():
        kind = own if key in own.model_fields else TrainingSettings
        given = {name: defaults[name] for name in kind.model_fields if name in defaults}
        assert key in given, f"{key} is no setting of {path.stem}"
        assert len(values) > 1
        for value in values:
            kind(**{**given, key: value})
