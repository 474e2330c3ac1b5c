"""The weights of a run: a file, a published name to download, or random ones for tests.

The publisher gives no checksums; the sha256 of a download is logged and recorded in the manifest.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec_recbole.encoders.beit3 import weights
from alignrec_recbole.encoders.beit3.architecture import Beit3, architecture_for
from alignrec_recbole.errors import (
    DownloadError,
    FeatureError,
    SettingError,
    WriteError,
    printable,
)
from alignrec_recbole.io.download import fetch_published
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.opening import is_regular_file

logger = logging.getLogger(__name__)

AZURE = "https://conversationhub.blob.core.windows.net/beit-share-public/beit3"
GITHUB = "https://github.com/addf400/files/releases/download/beit3"
NAMES = {
    f"{size}{kind}": f"beit3_{size}{kind.replace('-', '_')}_patch16_224.pth"
    for size in ("base", "large")
    for kind in ("", "-itc", "-indomain")
}
TOKENIZER = "beit3.spm"
# First bytes of the files, as a server may answer with a web page: torch's zip or its older pickle;
# the first piece of a SentencePiece model (a tag, its length, the tag of its text).
STARTS = {".pth": rb"PK\x03\x04|\x80\x02", ".spm": rb"\n[^\n]\n"}
RANDOM_NOTE = "random weights"


@dataclass(frozen=True)
class ResolvedWeights:
    """A model, what distinguishes it from others, and what a reader must know about it."""

    model: Beit3
    identity: dict[str, Any]
    notes: list[str]


def cache_dir() -> Path:
    """$ALIGNREC_CACHE, else ~/.cache/alignrec_recbole."""
    named_dir = os.environ.get("ALIGNREC_CACHE")
    return Path(named_dir) if named_dir else Path.home() / ".cache" / "alignrec_recbole"


def check_choice(given: str | None, random_init: bool, size: str | None = None) -> None:
    """Check that weights are either named or random, and that only random ones are given a size.

    Raises:
        SettingError: neither or both are given, or a size of named weights.
    """
    if random_init == (given is not None):
        raise SettingError(
            "BEiT-3 needs weights." if given is None else "Weights are either given or random.",
            found="neither --weights nor --random-init" if given is None else "both",
            expected=f"--weights PATH, or one of {', '.join(NAMES)} to download them",
            hint="--random-init makes features without meaning, for tests; tables will say so",
        )
    if size is not None and not random_init:
        raise SettingError(
            "--size is given without --random-init.",
            found=f"--size {size} with --weights {given}",
            expected="--size with --random-init; weights have the size that they were made with",
        )


def resolve_weights(
    given: str | None,
    *,
    random_init: bool,
    size: str = "base",
    image_size: int | None = None,
    vocab_size: int = 64010,
    seed: int = 0,
    progress: bool = True,
) -> ResolvedWeights:
    """The weights that the command line names.

    Args:
        given: a file, or a name in NAMES to download.
        random_init: instead of any: untrained weights, for tests; every table will say so.
        size, vocab_size, seed: of random weights.
        image_size: if not the file's, its positions are interpolated.

    Raises:
        SettingError: neither or both were asked for.
        FeatureError: the file is not BEiT-3.
        DownloadError: the published file cannot be downloaded.
    """
    check_choice(given, random_init)
    if given is None:
        model = Beit3(architecture_for(size, image_size or 224, vocab_size=vocab_size)).initialise(
            seed
        )
        return ResolvedWeights(
            model, {"weights": "random", "seed": seed, "size": size}, [RANDOM_NOTE]
        )
    path = _fetched(NAMES[given], progress) if given in NAMES else Path(given)
    if path.suffix == ".safetensors":
        model, header = weights.load_with_header(path)
        digest = sha256_file(path)
    else:
        model, digest = _converted(path)
        header = weights.Header()
    if image_size:
        model = weights.resized(model, image_size)
    identity = {"weights_sha256": digest, "weights": path.name}
    if header.origin:
        identity["origin"] = header.origin
    return ResolvedWeights(model, identity, [printable(note) for note in header.notes])


def _converted(path: Path) -> tuple[Beit3, str]:
    """A .pth and its hash; it is read once, later calls read a safetensors copy of it.

    The copy's header has the hashes of the .pth and of the weights: any other copy is made again.
    """
    if not is_regular_file(path):
        weights.load(path)  # says what is wrong
    digest = sha256_file(path)
    copy = cache_dir() / "beit3" / f"{digest[:24]}.safetensors"
    if os.path.lexists(copy):
        try:
            model, header = weights.load_with_header(copy)
            if (header.sha256, header.content_sha256) == (digest, weights.content_hash(model)):
                return model, digest
            found = "other weights"
        except FeatureError as error:
            found = error.found
        logger.warning("The converted weights %s are read again from %s: %s", copy, path, found)
    model = weights.load(path)
    note = {"origin": path.name, "sha256": digest, "content_sha256": weights.content_hash(model)}
    try:
        weights.save(model, copy, note)
    except WriteError as error:
        logger.warning("The converted weights are not stored: %s", error)
    return model, digest


def find_tokenizer(given: str | None, weights_given: str | None, progress: bool = True) -> Path:
    """The tokenizer's file: the one named, the one beside the weights, or the published one.

    Raises:
        SettingError: a file of weights was named and there is none beside it.
        DownloadError: the published one cannot be downloaded.
    """
    if given is not None:
        return Path(given)
    if weights_given in NAMES:
        return _fetched(TOKENIZER, progress)
    for name in ("tokenizer.spm", TOKENIZER):
        beside = Path(weights_given or ".").parent / name
        if weights_given and is_regular_file(beside):
            return beside
    raise SettingError(
        "BEiT-3 needs its tokenizer.",
        found=f"no tokenizer.spm or {TOKENIZER} beside {weights_given}",
        expected="--tokenizer PATH",
    )


def _fetched(file: str, progress: bool) -> Path:
    folder = cache_dir() / "beit3"
    place = "sentencepiece" if file == TOKENIZER else "pretraining"
    failures = []
    for url in (f"{AZURE}/{place}/{file}", f"{GITHUB}/{file}"):
        try:
            entry = {"file": file, "url": url, "starts": STARTS[Path(file).suffix]}
            fetch_published([entry], folder, progress=progress)
            return folder / file
        except DownloadError as error:
            failures.append(f"{url}: {error.found}")
    raise DownloadError(
        f"{file} could not be downloaded.",
        found="; ".join(failures),
        expected="one of the two published URLs to answer",
        hint=f"download it by other means and pass its path, or put it into {folder}",
    )
