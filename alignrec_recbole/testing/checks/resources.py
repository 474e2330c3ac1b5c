"""Memory, device, configuration, output."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import textwrap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignrec_recbole.errors import SettingError
from alignrec_recbole.settings import check_keys
from alignrec_recbole.testing import renumbering
from alignrec_recbole.testing.checks.exceptions import own_settings
from alignrec_recbole.testing.checks.outcomes import must_raise
from alignrec_recbole.testing.checks.training import total_loss
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.testing.testbed import FittedModel, Testbed


class LargestTensor(TorchDispatchMode):
    """Notes the largest dense tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self.elements = max(self.elements, leaf.numel())
        return out


def check_memory_ceiling(testbed: Testbed) -> None:
    """Nothing dense in items × items, nor in users × items outside scoring."""
    world = make_blocks(users=150, items=500, likes=8)  # 600 users, 2,000 items
    n_users, n_items = len(world.users), len(world.items)
    settings = own_settings(testbed.under_test, "check_memory_ceiling")
    config = testbed.config(world, 1, settings)
    splits = testbed.splits(config)
    if testbed.under_test.uses_features:
        assert splits[0].features, "the world has features"
    with LargestTensor():
        testbed.under_test.model_class(
            config, splits[0]
        )  # what a first build imports is not the model's
    tracemalloc.start()
    with LargestTensor() as build:
        model = testbed.under_test.model_class(config, splits[0]).to(config["device"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert build.elements < n_items**2 / 4, f"building makes a tensor of {build.elements:,}"
    assert peak < 2 * n_items**2, f"building takes {peak:,} bytes in NumPy"  # items² / 2 floats
    trainer = testbed.under_test.trainer_class(config, model)
    fit = FittedModel(testbed.under_test, world, config, splits, model, trainer)
    if testbed.under_test.learns:
        with LargestTensor() as step:
            model.train()
            total_loss(fit).backward()
        assert step.elements < n_users * n_items, f"a step makes a tensor of {step.elements:,}"
    with LargestTensor() as scoring:
        fit.scores(fit.user_ids[:100])
    limit = 100 * (n_items + 1)
    vectors = (n_users + n_items + 2) * 256  # some models concatenate a vector a modality
    assert scoring.elements <= max(limit, build.elements, vectors), (
        f"scoring 100 users makes a tensor of {scoring.elements:,}"
    )


def check_device_is_followed(testbed: Testbed) -> None:
    """Every tensor of the model is on its device, and no device is named in its code."""
    fit = testbed.smoke_fit()
    wanted = torch.device(fit.config["device"]).type
    for name, tensor in renumbering.tensors(fit.model):
        assert tensor.device.type == wanted, f"{name} is on {tensor.device}, not on {wanted}"
    for node in ast.walk(ast.parse(_source(testbed.under_test.model_class))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value.split(":")[0] != "cuda", "the code names the device 'cuda'"
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda", "the code calls .cuda()"


def _source(model_class: Any) -> str:
    return textwrap.dedent(inspect.getsource(model_class))


def check_config_is_closed(testbed: Testbed) -> None:
    """A key that is absent or unknown is an error; a model never writes to its configuration."""
    config = testbed.config(testbed.world, 1, {"epochs": 1})
    splits = testbed.splits(config)
    before = repr(sorted(config.final_config_dict.items(), key=lambda item: item[0]))
    testbed.under_test.model_class(config, splits[0])
    after = repr(sorted(config.final_config_dict.items(), key=lambda item: item[0]))
    assert before == after, "building the model changed its configuration"
    if testbed.under_test.known_keys:
        must_raise(
            SettingError,
            lambda: check_keys(
                {"embeding_size": 1}, set(testbed.under_test.known_keys), "the model"
            ),
            "an unknown key went unnoticed",
        )
    kind = getattr(testbed.under_test.model_class, "settings_class", None)
    for key in kind.model_fields if kind else ():
        assert key in testbed.under_test.settings, f"{key} has no default in the model's YAML"
        value = config.final_config_dict.pop(key)
        must_raise(
            SettingError,
            lambda: testbed.under_test.model_class(config, splits[0]),
            f"the model was built without {key}",
        )
        config.final_config_dict[key] = value


def check_prints_and_writes_nothing(testbed: Testbed) -> None:
    """Building, training and scoring print nothing and leave no file."""
    place = testbed.folder_of(testbed.world)
    folder = testbed.folder / "work"
    folder.mkdir(exist_ok=True)
    before = _files(place), _files(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _working_in(folder):
        fit = testbed.fresh_fit(epochs=1, validate=True)
        fit.scores()
    assert printed.getvalue() == "", f"printed {printed.getvalue()[:80]!r}"
    for old, new in zip(before, (_files(place), _files(folder)), strict=True):
        assert old == new, f"wrote {sorted(new - old)}"


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    old = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(old)


def check_scores_as_on_cpu(testbed: Testbed) -> None:
    """The same weights score on the testbed's device what they score on the CPU.

    Not among `model_checks`: for a testbed on another device.
    """
    cpu = Testbed(testbed.under_test, testbed.folder / "cpu", testbed.world)
    one, other = cpu.smoke_fit(), testbed.build()
    found = torch.device(other.model.device).type
    assert found == testbed.device, f"the model is on {found}, asked for {testbed.device}"
    other.model.load_state_dict(one.model.state_dict())
    assert torch.allclose(one.scores(), other.scores(), rtol=1e-4, atol=1e-5), (
        f"scores on {found} differ from those on the CPU"
    )
