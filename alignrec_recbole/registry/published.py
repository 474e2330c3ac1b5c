"""Settings of a model on a data set as its authors published them, from properties/published/.

A file MODEL.yaml has, per data set, the source and the settings that the authors chose; what they
do not say keeps its default.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from alignrec_recbole.data.rekeyed_names import origin_of
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml

FOLDER = "published"


class Published(BaseModel):
    """Published settings of one model on one data set.

    Attributes:
        source: where they are written: repository, commit and file, or paper and table.
        settings: key → value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: str = Field(min_length=1, max_length=500)
    settings: dict[str, Any] = Field(min_length=1)


_BY_DATASET = TypeAdapter(dict[str, Published])


def published_models() -> list[str]:
    """Models that have published settings."""
    return sorted(path.stem for path in (properties_dir() / FOLDER).glob("*.yaml"))


def published_of(model: str) -> dict[str, Published]:
    """The published settings of a model by data set; empty if there are none.

    Raises:
        SettingError: the model's file has another form.
    """
    path = inside(properties_dir(), f"{FOLDER}/{model}.yaml")
    try:
        return _BY_DATASET.validate_python(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingError(
            f"The published settings of {model} cannot be read.",
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            expected="per data set: source, settings",
            hint=f"repair {path.name}",
        ) from None


def published_settings(model: str, dataset: str) -> Published:
    """What the authors of a model published for a data set; a re-keyed one has its origin's.

    Raises:
        UnknownNameError: they are not recorded; with the data sets, or models, that have some.
    """
    found = published_of(model)
    rekeyed = origin_of(dataset)
    name = rekeyed[0] if rekeyed else dataset
    if name not in found:
        raise UnknownNameError(
            f"{model} has no published settings for the data set {name!r}.",
            found="--config published",
            expected=f"one of {', '.join(found)}"
            if found
            else f"one of the models {', '.join(published_models())}",
            hint="`list published` shows all; without --config the defaults are used",
        )
    return found[name]
