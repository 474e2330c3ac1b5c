"""The verb `import`: files of every format to a folder that is read again, and never spoilt."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import format_files as files
import numpy as np
import pytest
from trials import check_refused, run_verb

from alignrec_recbole.data import import_folder
from alignrec_recbole.data.images import centre_square
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import WriteError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import load_features
from alignrec_recbole.io.files import sha256_file


def imported(tmp_path: Path, source: Path, *arguments: object, name: str = "x") -> Path:
    answer = run_verb(
        "import", source, "--dataset", name, "--data-path", tmp_path / "data", "--no-progress",
        *arguments,
    )  # fmt: skip
    assert answer.status == 0, answer.errors
    return tmp_path / "data" / name


def original_pairs(folder: Path, name: str = "x") -> set[tuple[str, str]]:
    """The interactions of a folder under their original ids."""
    users, items = (
        {str(number): token for token, number in read_mapping(folder / file).items()}
        for file in ("u_id_mapping.csv", "i_id_mapping.csv")
    )
    table = read_interactions(folder / f"{name}.inter")
    return {(users[u], items[i]) for u, i in zip(table.users, table.items, strict=True)}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", files.WRITERS)
def test_every_format_becomes_a_folder_that_is_read_again(tmp_path: Path, name: str) -> None:
    expected = files.WRITERS[name](tmp_path / "raw")
    options = ["--format", name, "--core", "1", "--no-images"]
    if name in ("ninerec", "pixelrec"):
        options += ["--split", "none"]  # too small for three parts
    folder = imported(tmp_path, tmp_path / "raw", *options)
    assert original_pairs(folder) == set(expected)
    before = contents(folder)
    assert imported(tmp_path, tmp_path / "raw", *options) == folder
    assert contents(folder) == before, "the same again"
    if (folder / "items.tsv").exists():
        table = read_item_table(folder / "items.tsv")
        assert table.ids == [str(n) for n in range(len({i for _, i in expected}))]
        assert any(table.texts)


def test_texts_and_images_follow_their_item(tmp_path: Path) -> None:
    files.hm(tmp_path / "raw")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "hm")
    numbers = read_mapping(folder / "i_id_mapping.csv")
    assert set(numbers) == set(files.ARTICLES), "with their zeros"
    table = read_item_table(folder / "items.tsv")
    row = numbers[files.ARTICLES[0]]
    assert table.texts[row].startswith("Strap top. Vest top. Black. Jersey top")
    images = [n for n, image in enumerate(table.images) if image is not None]
    assert images == [row]
    assert centre_square(folder / "images" / f"{files.ARTICLES[0]}.jpg", 2).pixels is not None
    assert "original_id" not in table.text_columns


def test_the_core_of_reviews_is_five_and_of_a_ready_split_none(tmp_path: Path) -> None:
    files.amazon2023(tmp_path / "raw")
    with open(tmp_path / "raw" / "All_Beauty.jsonl", "ab") as handle:
        handle.write(files.lines([files.review("RARE", files.ASINS[0], 5)]))
    folder = imported(tmp_path, tmp_path / "raw", "--format", "amazon2023", "--no-images")
    assert "RARE" not in read_mapping(folder / "u_id_mapping.csv")
    files.amazon2023_split(tmp_path / "split")
    with open(tmp_path / "split" / "All_Beauty.train.csv", "a") as handle:
        handle.write(f"RARE,{files.ASINS[0]},5.0,5\n")
    folder = imported(tmp_path, tmp_path / "split", "--format", "amazon2023", name="y")
    assert "RARE" in read_mapping(folder / "u_id_mapping.csv")
    assert json.loads((folder / "y.split.json").read_text())["split"] == "released"
    labels = read_interactions(folder / "y.inter").labels
    assert labels is not None
    assert np.bincount(labels).tolist() == [29, 7, 7]


@pytest.mark.parametrize(("core", "users"), [("1", "abc"), ("1,2", "abc"), ("2,1", "ab")])
def test_a_core_of_users_or_of_items_alone(tmp_path: Path, core: str, users: str) -> None:
    (tmp_path / "t.csv").write_text("who,sku\na,x\na,y\nb,x\nb,z\nc,x\n")
    columns = ("--columns", "user=who,item=sku", "--split", "none")
    folder = imported(tmp_path, tmp_path / "t.csv", *columns, "--core", core)
    found = original_pairs(folder)
    assert "".join(sorted({user for user, _ in found})) == users
    assert len(found) == {"1": 5, "1,2": 3, "2,1": 4}[core]


def test_milliseconds_are_written_exactly(tmp_path: Path) -> None:
    files.amazon2023(tmp_path / "raw")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "amazon2023", "--no-images")
    with open(folder / "x.inter") as handle:
        times = {int(row["timestamp"]) for row in csv.DictReader(handle, delimiter="\t")}
    assert times == {files.START + 1000 * n for n in range(42)}


def test_features_by_number_follow_their_item(tmp_path: Path) -> None:
    files.mmssl(tmp_path / "raw")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "mmssl")
    numbers = read_mapping(folder / "i_id_mapping.csv")
    assert list(numbers) != sorted(numbers), "numbers are drawn"
    features = load_features(folder / "features" / "text_feat.npy")
    assert features.manifest.items is not None
    for token, number in numbers.items():
        row = features.matrix[features.manifest.items.index(str(number))]
        assert row.tolist() == [4.0 * int(token) + n for n in range(4)]
    assert features.manifest.modality == "text"


@pytest.mark.parametrize("shape", [(4, 3), (20,), (0, 3)])
def test_features_that_do_not_fit_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files.mmssl(tmp_path / "raw")
    np.save(tmp_path / "raw" / "text_feat.npy", np.ones(shape))
    answer = run_verb("import", tmp_path / "raw", "--format", "mmssl", "--dataset", "x",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "text_feat.npy")
    assert not (tmp_path / "data" / "x" / "x.inter").exists()


def test_odd_ids_come_back_through_the_mappings(tmp_path: Path) -> None:
    odd = ['"all"', '"', 'a "b" c', "a,b", "007", "x/y", "../../etc", "é😀", "-", "0.10", "NA"]
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("who", "sku"), *((u, i) for u in odd for i in odd)])
    titles = tmp_path / "i.csv"
    with open(titles, "w", newline="", encoding="utf-8") as handle:
        rows = [(i, f"title of {i}", f'"{i}"') for i in odd]
        csv.writer(handle).writerows([("sku", "title", "quoted"), *rows])
    folder = imported(
        tmp_path, tmp_path / "t.csv", "--columns", "user=who,item=sku", "--items", titles
    )
    assert original_pairs(folder) == {(u, i) for u in odd for i in odd}
    numbers = read_mapping(folder / "i_id_mapping.csv")
    table = read_item_table(folder / "items.tsv")
    assert [table.texts[numbers[i]] for i in odd] == [f'title of {i}. "{i}"' for i in odd]


def test_images_of_a_table_have_safe_names(tmp_path: Path) -> None:
    odd = ["../up", "a/b", "c" * 400, "d e", "plain"]
    for n in range(len(odd)):
        files.image(tmp_path / "images" / f"{n}.PNG")
    rows = [(i, "t", f"{n}.PNG") for n, i in enumerate(odd)]
    with open(tmp_path / "i.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([("sku", "title", "image"), *rows])
    with open(tmp_path / "t.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(
            [("who", "sku"), *((f"u{n}", i) for n in range(4) for i in odd)]
        )
    folder = imported(tmp_path, tmp_path / "t.csv", "--columns", "user=who,item=sku",
                      "--items", tmp_path / "i.csv")  # fmt: skip
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert len(names) == len(odd)
    assert "plain.png" in names
    assert all(image and image.is_file() for image in read_item_table(folder / "items.tsv").images)


def test_column_names_of_item_tables_are_cells_too(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text('sku,"a\tb",item,id,,"c\nd"\nx,A,B,C,D,E\n')
    (tmp_path / "t.csv").write_text("who,sku\nu,x\nu,y\nu,z\n")
    options = ["--columns", "user=who,item=sku", "--items", tmp_path / "i.csv", "--split", "none"]
    table = read_item_table(imported(tmp_path, tmp_path / "t.csv", *options) / "items.tsv")
    assert table.text_columns == ["a b", "c d"]
    assert sorted(table.texts) == ["", "", "A. E"]
    (tmp_path / "i.csv").write_text('sku,a:token,"a:float"\nx,A,1\n')
    answer = run_verb("import", tmp_path / "t.csv", *options, "--dataset", "y",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "several columns 'a'")


def test_only_regular_files_are_covers(tmp_path: Path) -> None:
    files.microlens(tmp_path / "raw")
    covers = tmp_path / "raw" / "MicroLens-50k_covers"
    (covers / "1.jpg").mkdir()
    os.mkfifo(covers / "2.jpg")
    (covers / "65.jpg").symlink_to(covers / "65.jpg")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "microlens")
    assert sorted(os.listdir(folder / "images")) == ["111.png", "63.jpg"]


def test_pickled_features_are_refused(tmp_path: Path) -> None:
    files.mmssl(tmp_path / "raw")
    np.save(tmp_path / "raw" / "text_feat.npy", np.array([{}] * 5, dtype=object), allow_pickle=True)
    answer = run_verb("import", tmp_path / "raw", "--format", "mmssl", "--dataset", "x",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "text_feat.npy")


def test_an_image_outside_the_folder_of_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files.image(tmp_path / "secret.png")
    (tmp_path / "in" / "i.csv").write_text("sku,image\ni,../secret.png\n")
    (tmp_path / "in" / "t.csv").write_text("who,sku\nu,i\n")
    answer = run_verb("import", tmp_path / "in" / "t.csv", "--columns", "user=who,item=sku",
                      "--items", tmp_path / "in" / "i.csv", "--dataset", "x", "--split", "none",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "leads out of its folder")
    assert not (tmp_path / "data").exists()


def test_images_are_downloaded_from_named_hosts_alone(tmp_path: Path) -> None:
    files.image(tmp_path / "www" / "1.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/1.png"
    (tmp_path / "i.csv").write_text(f"sku,title,image_url\n1,a,{url}\n2,b,\n3,c,\n")
    rows = "".join(f"u{n},{i}\n" for n in range(4) for i in (1, 2, 3))
    (tmp_path / "t.csv").write_text("who,sku\n" + rows)
    options = ["--columns", "user=who,item=sku", "--items", tmp_path / "i.csv"]
    try:
        folder = imported(tmp_path, tmp_path / "t.csv", *options)
        assert not (folder / "images").exists(), "no host was named"
        imported(tmp_path, tmp_path / "t.csv", *options, "--image-hosts", "127.0.0.1")
    finally:
        server.shutdown()
        server.server_close()
    assert centre_square(folder / "images" / "1.jpg", 2).pixels is not None


# What is there already ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        ["--seed", "1"],
        ["--split", "leave-last-out"],
        ["--numbering", "appearance"],
        ["--core", "6"],
        ["another file"],
        ["a changed result"],
    ],
)
def test_another_data_set_of_the_name_stays(tmp_path: Path, changed: list[str]) -> None:
    files.amazon2023(tmp_path / "raw")
    options = ["--format", "amazon2023", "--no-images", "--core", "1"]
    with open(tmp_path / "raw" / "All_Beauty.jsonl", "ab") as handle:
        handle.write(files.lines([files.review("RARE", files.ASINS[0], 5)]))
    folder = imported(tmp_path, tmp_path / "raw", *options)
    if changed in (["another file"], ["a changed result"]):
        path = tmp_path / "raw" / "All_Beauty.jsonl" if "file" in changed[0] else folder / "x.inter"
        changed = []
        with open(path, "ab") as handle:
            handle.write(b"\n")
    before = contents(folder)
    answer = run_verb("import", tmp_path / "raw", *options, "--dataset", "x",
                      "--data-path", tmp_path / "data", *changed)  # fmt: skip
    check_refused(answer, "There is another x.inter already")
    assert contents(folder) == before


def test_a_folder_that_something_else_made_stays(tmp_path: Path) -> None:
    files.microlens(tmp_path / "raw")
    folder = tmp_path / "data" / "x"
    folder.mkdir(parents=True)
    for name, text in (
        ("x.inter", "userID\titemID\n1\t2\n"),
        ("items.tsv", "itemID\ttitle\n2\ta\n"),
    ):
        (folder / name).write_text(text)
        answer = run_verb("import", tmp_path / "raw", "--format", "microlens", "--dataset", "x",
                          "--data-path", tmp_path / "data")  # fmt: skip
        check_refused(answer, name)
        assert contents(folder) == {name: sha256_file(folder / name)}
        (folder / name).unlink()


def test_a_table_with_fewer_texts_does_not_replace_a_better_one(tmp_path: Path) -> None:
    files.microlens(tmp_path / "raw")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "microlens")
    before = contents(folder)
    titles = tmp_path / "raw" / "MicroLens-50k_titles.csv"
    titles.write_text("item,title\n1,cat\n")
    answer = run_verb("import", tmp_path / "raw", "--format", "microlens", "--dataset", "x",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "items.tsv would be replaced")
    titles.unlink()
    answer = run_verb("import", tmp_path / "raw", "--format", "microlens", "--dataset", "x",
                      "--data-path", tmp_path / "data")  # fmt: skip
    check_refused(answer, "items.tsv would be replaced")
    assert contents(folder) == before


@pytest.mark.parametrize("step", ["_write_mapping", "_write_items", "write_dataset"])
def test_an_import_that_ended_early_is_completed(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.hm(tmp_path / "raw")
    whole = contents(imported(tmp_path / "a", tmp_path / "raw", "--format", "hm"))

    def full(*arguments: object, **keywords: object) -> None:
        raise WriteError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(import_folder, step, full)
        answer = run_verb("import", tmp_path / "raw", "--format", "hm", "--dataset", "x",
                          "--data-path", tmp_path / "b" / "data")  # fmt: skip
        check_refused(answer, "The disk is full")
    assert not (tmp_path / "b" / "data" / "x" / "x.inter").exists()
    assert contents(imported(tmp_path / "b", tmp_path / "raw", "--format", "hm")) == whole


def test_image_files_that_were_replaced_are_taken_again(tmp_path: Path) -> None:
    files.hm(tmp_path / "raw")
    folder = imported(tmp_path, tmp_path / "raw", "--format", "hm")
    image = folder / "images" / f"{files.ARTICLES[0]}.jpg"
    whole = sha256_file(image)
    image.unlink()
    image.write_bytes(b"torn")
    imported(tmp_path, tmp_path / "raw", "--format", "hm")
    assert sha256_file(image) == whole
    assert sorted(os.listdir(folder / "images")) == [image.name]


@pytest.mark.slow
def test_an_import_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    raw = tmp_path / "t.csv"
    with open(raw, "w") as handle:
        handle.write("who,sku,t\n")
        handle.writelines(f"u{n % 5003},i{n % 2503},{n}\n" for n in range(200_000))
    command = [
        sys.executable, "-m", "alignrec_recbole", "import", raw, "--dataset", "x", "--no-progress",
        "--columns", "user=who,item=sku,time=t", "--data-path",
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run([*command, tmp_path / "a"], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    draw = random.Random(7)
    for _ in range(5):
        process = subprocess.Popen([*command, tmp_path / "b"], stdout=subprocess.DEVNULL)
        time.sleep(seconds * draw.uniform(0.3, 0.95))
        process.kill()
        process.wait()
    subprocess.run([*command, tmp_path / "b"], check=True, capture_output=True)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


# The command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "The format of the files is not named"),
        (["--format", "table"], "The columns of the table are not named"),
        (["--format", "hm", "--columns", "user=a,item=b"], "--columns is an option of tables"),
        (["--format", "hm", "--items", "x"], "--items is an option of tables"),
        (["--format", "csv"], "--format"),
        (["--columns", "user=a"], "name no item"),
        (["--format", "hm", "--core", "0"], "--core"),
        (["--format", "hm", "--core", "5,x"], "--core"),
        (["--format", "hm", "--split", "global"], "Split 'global' is unknown"),
        (["--format", "hm", "--dataset", "../x"], "leads out of its folder"),
        (["--format", "microlens", "--split", "released"], "released"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str], words: str) -> None:
    files.microlens(tmp_path / "raw")
    answer = run_verb("import", tmp_path / "raw", "--dataset", "x",
                      "--data-path", tmp_path / "data", *arguments)  # fmt: skip
    check_refused(answer, words)
    assert not (tmp_path / "data" / "x" / "x.inter").exists()


def test_an_imported_data_set_is_trained_on(tmp_path: Path) -> None:
    users, items = ([f"{kind}{n}" for n in range(12)] for kind in ("U", "B"))
    raw = tmp_path / "raw"
    raw.mkdir()
    entries = [
        files.review(u, i, n * 37 % 132) for n, (u, i) in enumerate(files.grid(users, items))
    ]
    (raw / "Toys.jsonl").write_bytes(files.lines(entries))
    (raw / "meta_Toys.jsonl").write_bytes(files.lines([files.meta(item) for item in items]))
    imported(tmp_path, raw, "--format", "amazon2023", "--no-images", "--split", "global-time")
    answer = run_verb("--model", "Pop", "--dataset", "x", "--data-path", tmp_path / "data",
                      "--output", tmp_path / "results", "--no-progress")  # fmt: skip
    assert answer.status == 0, answer.errors
    assert "Pop" in answer.output
