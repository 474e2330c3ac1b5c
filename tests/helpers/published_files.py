"""Small files of exactly the formats that are published, and the facts of their data sets."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scripted_server import ScriptedServer, scripted_server

from alignrec_recbole.data import dataset_paths
from alignrec_recbole.data.cards import split_sha256
from alignrec_recbole.io.yaml_loader import properties_dir

USERS, ITEMS, GROUPS = 60, 40, 5
PART = {"visual": 24, "textual": 12, "acoustic": 8}  # modality → columns
ARCHIVES = {
    "baby": "Amazon2014Baby_550_MMRec.zip",
    "sports": "Amazon2014Sports_550_MMRec.zip",
    "clothing": "Amazon2014Clothing_550_MMRec.zip",
    "elec": "Amazon2014Electronics_550_MMRec.zip",
    "tiktok": "Tiktok_MMSSL.zip",
    "allrecipes": "Allrecipes_MMSSL.zip",
}
RAW = {
    "baby": "Baby",
    "sports": "Sports_and_Outdoors",
    "clothing": "Clothing_Shoes_and_Jewelry",
}


@dataclass
class World:
    """Users who choose items of one group, with a split and features that know the groups.

    Attributes:
        rows: user, item, label.
        features: modality → float32 [items, columns].
    """

    rows: np.ndarray = field(init=False)
    features: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        group = rng.permutation(np.arange(ITEMS) % GROUPS)
        rows = []
        for user in range(USERS):
            own = rng.permutation(np.flatnonzero(group == user % GROUPS))
            labels = [0] * (len(own) - 2) + [1, 2]
            rows += [(user, item, label) for item, label in zip(own, labels, strict=True)]
        self.rows = np.array(rows)
        centres = {name: rng.normal(size=(GROUPS, width)) for name, width in PART.items()}
        self.features = {
            name: torch.tensor(
                centres[name][group] + 0.3 * rng.normal(size=(ITEMS, width)), dtype=torch.float32
            )
            for name, width in PART.items()
        }

    @property
    def counts(self) -> list[int]:
        """Rows per split."""
        return np.bincount(self.rows[:, 2]).tolist()

    def members(self, audio: bool = False) -> dict[str, bytes]:
        """What an archive has."""
        out = {}
        for label, name in enumerate(("train", "valid", "test")):
            part = self.rows[self.rows[:, 2] == label]
            lines = ["USER\tITEM", *(f"{user}\t{item}" for user, item, _ in part)]
            out[f"{name}.txt"] = ("\n".join(lines) + "\n").encode()
        for name, tensor in self.features.items():
            if name != "acoustic" or audio:
                out[f"{name}_modality.pkl"] = pickle.dumps(tensor, pickle.HIGHEST_PROTOCOL)
        return out

    def inter(self) -> bytes:
        """The split in MMRec's layout."""
        lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in self.rows)]
        return ("\n".join(lines) + "\n").encode()

    def reviews(self) -> bytes:
        """The reviews of 2014: an object per line, item ids sorted as their numbers."""
        lines = [
            json.dumps(
                {
                    "reviewerID": f"A{user:05}", "asin": asin(item), "overall": 5.0,
                    "unixReviewTime": 1390176000 + n, "reviewText": "good",
                }
            )
            for n, (user, item, _) in enumerate(self.rows)
        ]  # fmt: skip
        return gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)

    def meta(self) -> bytes:
        """The metadata of 2014: a Python literal per line, other items among them."""
        lines = [
            repr({"asin": asin(n), "title": f"thing {n % 7} of kind {n % 5}",
                  "categories": [["All", f"kind {n % 5}"]],
                  "imUrl": f"http://ecx.images-amazon.com/images/I/{n}.jpg"})
            for n in range(ITEMS + 10)
        ]  # fmt: skip
        return gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)

    def images(self) -> dict[str, bytes]:
        """An image of its kind's colour per item, under the names of a mirror; the last is none."""
        files = {}
        for n in range(ITEMS - 1):
            image = Image.new("RGB", (40, 40), (50 * (n % 5), 6 * n, 90))
            out = io.BytesIO()
            image.save(out, "JPEG")
            files[f"images/{asin(n)}.jpg"] = out.getvalue()
        return files


def asin(number: int) -> str:
    """An item's id."""
    return f"B{number:09}"


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file, the same bytes at every call."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def all_files(world: World) -> dict[str, bytes]:
    """Every published file by name."""
    files = {
        name: zipped(world.members(audio=dataset == "tiktok")) for dataset, name in ARCHIVES.items()
    }
    for dataset, category in RAW.items():
        files[f"meta_{category}.json.gz"] = world.meta()
        files[f"reviews_{category}_5.json.gz"] = world.reviews()
        files[f"{dataset}.inter"] = world.inter()
    return files


@contextlib.contextmanager
def published(world: World, folder: Path, files: Mapping[str, bytes]) -> Iterator[ScriptedServer]:
    """A server with files of a world, which the data sets' YAML files describe meanwhile."""
    facts = facts_of(world, folder)
    with pytest.MonkeyPatch.context() as patch, scripted_server() as running:
        patch.setattr(dataset_paths, "properties_dir", lambda: facts)
        patch.delenv("ALIGNREC_MIRROR", raising=False)
        running.serves(files)
        yield running


def facts_of(world: World, folder: Path) -> Path:
    """The data sets' YAML files with this world's counts and without hashes; returns `folder`."""
    (folder / "dataset").mkdir(parents=True)
    for path in (properties_dir() / "dataset").glob("*.yaml"):
        text = path.read_text("utf-8")
        text = re.sub(r"  users: \d+", f"  users: {USERS}", text)
        text = re.sub(r"  items: \d+", f"  items: {ITEMS}", text)
        text = re.sub(r"  interactions: \[.*?\]", f"  interactions: {world.counts}", text)
        text = re.sub(r"    git_blob: .*\n", "", text)
        text = re.sub(
            r"  split_sha256: .*\n", f"  split_sha256: {split_sha256(world.rows)}\n", text
        )
        (folder / "dataset" / path.name).write_text(text, "utf-8")
    return folder
