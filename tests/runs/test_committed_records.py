"""Committed records are found by the commands that made them: no later setting hides one.

Every record's command is given again with the record's own data and feature hashes in place of
files, on a copy of the results; nothing may be trained, ranked or written anew.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from records import spec_of

from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.protocols import READ_LISTS, context, stored_lists
from alignrec_recbole.protocols.run import run_protocol
from alignrec_recbole.runs import config_hash, effective_config, prepare, run
from alignrec_recbole.runs import record as record_module
from alignrec_recbole.runs.prepared import PreparedData
from alignrec_recbole.runs.record import Run, RunRecord, read_record, read_runs
from alignrec_recbole.runtime.threads import ThreadCount

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
RUNS = read_runs(SHIPPED / "runs") + read_runs(SHIPPED / "tuning")
GROUPS = sorted({(made.record.dataset, made.record.protocol) for made in RUNS})
USERS, ITEMS = 6, 12
read_once = functools.cache(read_record)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results")
    for kind in ("runs", "tuning"):
        shutil.copytree(SHIPPED / kind, output / kind)
    return output


def features_at_hand(record: RunRecord) -> dict[str, Any]:
    """The feature files that the record's command reads; beyond-accuracy names its own content."""
    content = record.config.get("protocol", {}).get("content")
    if content is None:
        return record.feature_files
    return {name: {"sha256": digest, "modality": "text"} for name, digest in content.items()}


def world_of(record: RunRecord) -> Any:
    """Some data set with the record's feature sets; its values are not used."""

    def features(name: str, modality: str, sha256: str) -> Any:
        values = np.ones((ITEMS + 1, 2), dtype=np.float32)
        manifest = SimpleNamespace(sha256=sha256)
        return SimpleNamespace(values=values, modality=modality, manifest=manifest)

    counterparts = record.config.get("protocol", {}).get("second_files", {})

    def open_features(name: str) -> Any:
        if name not in counterparts:
            raise UnknownNameError(name)
        return features(name, "fused", counterparts[name])

    users = np.repeat(np.arange(1, USERS + 1), ITEMS)
    items = np.tile(np.arange(1, ITEMS + 1), USERS)
    return SimpleNamespace(
        iid_field="item",
        field2id_token={"item": np.array(["[PAD]", *map(str, range(ITEMS))])},
        features={
            name: features(name, file["modality"], file["sha256"])
            for name, file in features_at_hand(record).items()
        },
        open_features=open_features,
        pairs=lambda: (users, items),
        user_num=USERS + 1,
        item_num=ITEMS + 1,
    )


@pytest.fixture
def given_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command of a record without its data; anything but reading records fails."""
    at_hand: list[RunRecord] = []

    def read(spec: Any, kind: Any, config: Any, given: Any, folder: Path) -> PreparedData:
        record = at_hand[-1]
        config["device"] = "cpu"
        return PreparedData(
            config,
            [world_of(record)] * 3,
            record.data,
            features_at_hand(record),
            effective_config.effective_config(config, given),
            [],
            0,
            ThreadCount(1, ""),
        )

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("not found: it would be run again")

    monkeypatch.setattr(record_module, "read_record", read_once)  # many commands look at them all
    monkeypatch.setattr(prepare, "_find_folder", lambda spec: Path("data") / spec.dataset)
    monkeypatch.setattr(prepare, "_read", read)
    monkeypatch.setattr(run, "build_trainer", refuse)
    monkeypatch.setattr(context.ProtocolContext, "rank", refuse)
    monkeypatch.setattr(context.ProtocolContext, "write", refuse)
    sources = {
        (r.config["protocol"]["of_sha256"], r.seed) for _, r in RUNS if r.protocol in READ_LISTS
    }
    monkeypatch.setattr(
        stored_lists,
        "user_values_path",
        lambda stored: (
            stored.path if (stored.record.config_sha256, stored.record.seed) in sources else None
        ),
    )

    def again(made: Run) -> list[RunRecord]:
        record = made.record
        at_hand.append(record)
        spec = replace(spec_of(record), output=copy, validation_only="tuning" in made.path.parts)
        if record.protocol == "full":
            return [run.run_one(spec)]
        needs_seed = record.protocol == "mask-modality" and record.model == "AlignRec"
        alone = record.protocol in ("zero-shot", "item-cf", "diagnostics")
        seeds = [record.seed] if needs_seed else None
        return list(run_protocol(spec, [] if alone else [record.model], seeds))

    return again


@pytest.mark.parametrize(("dataset", "protocol"), GROUPS)
def test_a_committed_record_is_found_by_its_command(
    dataset: str, protocol: str, given_again: Any
) -> None:
    members = [m for m in RUNS if (m.record.dataset, m.record.protocol) == (dataset, protocol)]
    found: set[tuple[str, str, bool]] = set()  # seeds differ in the file name alone, see below
    for made in members:
        grid_point = "tuning" in made.path.parts
        key = made.record.model, made.record.config_sha256, grid_point
        if key not in found:
            records = given_again(made)
            found |= {(r.model, r.config_sha256, grid_point) for r in records}
        assert key in found, made.path


def test_names_of_files_contain_the_hash() -> None:
    for made in RUNS:
        assert f"-{made.record.config_sha256[:8]}-s{made.record.seed}" in made.path.stem


def test_without_the_rule_for_added_settings_records_are_lost(
    given_again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before the rule: each setting enters the hash as soon as it exists."""
    ease = next(m for m in RUNS if (m.record.dataset, m.record.model) == ("baby", "EASE"))
    assert given_again(ease)
    monkeypatch.setattr(config_hash, "ADDED_SETTINGS", {})
    monkeypatch.setattr(config_hash, "HASHED_WITHOUT_RULE", ())
    with pytest.raises(AssertionError, match="it would be run again"):
        given_again(ease)


def test_a_setting_added_tomorrow_changes_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    record = RUNS[0].record
    identity = {
        "model": record.model,
        "dataset": record.dataset,
        "protocol": record.protocol,
        "data": record.data,
        "feature_files": record.feature_files,
    }
    before = config_hash.config_hashes(config=record.config, **identity)
    added = {**config_hash.ADDED_SETTINGS, "new": None}
    monkeypatch.setattr(config_hash, "ADDED_SETTINGS", added)
    unchanged, changed = ({**record.config, "new": value} for value in (None, 3))
    assert config_hash.config_hashes(config=unchanged, **identity) == before
    assert not set(before) & set(config_hash.config_hashes(config=changed, **identity))


def test_committed_commands_on_data_that_everyone_has_train_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ml-100k comes with RecBole: here the files are read and hashed, too."""
    before = {path: path.read_bytes() for path in sorted(copy.rglob("runs/**/*.json"))}
    for command in (
        ["--model", "Pop,EASE,LightGCN,BPR", "--dataset", "ml-100k"],
        ["--dataset", "ml-100k", "--features", "random", "--protocol", "zero-shot,item-cf"],
    ):
        assert main([*command, "--output", str(copy), "--quiet"]) == 0
    assert {path: path.read_bytes() for path in sorted(copy.rglob("runs/**/*.json"))} == before
