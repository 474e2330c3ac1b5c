"""Small files of exactly the published formats, made by hand from their descriptions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Pairs = list[tuple[str, str]]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 6), "red").save(path)


def grid(users: list[str], items: list[str]) -> Pairs:
    """Every user with every item but one."""
    return [(u, i) for a, u in enumerate(users) for b, i in enumerate(items) if a != b]


# Amazon Reviews 2023 ------------------------------------------------------------------------------

USERS = [f"AEYORY2AVPMCPDV57CE337YU5LX{n}" for n in range(7)]
ASINS = [f"B00RZPW30{n}" for n in range(7)]
START = 1588687728923
HOST = "https://m.media-amazon.com"


def review(user: str, item: str, time: int, rating: float = 5.0, **changed: object) -> dict:
    return {
        "rating": rating, "title": "Such a lovely scent", "text": "5 <br /> \"quoted\"\tétoile 🌟",
        "images": [], "asin": item[:-1] + "X", "parent_asin": item, "user_id": user,
        "timestamp": time, "helpful_vote": 0, "verified_purchase": True, **changed,
    }  # fmt: skip


def meta(item: str, **changed: object) -> dict:
    return {
        "main_category": "All Beauty", "title": f"Soap &amp; {item}", "average_rating": 4.8,
        "rating_number": 10, "features": ["Gentle", "100% <b>pure</b>"],
        "description": ["Line\none"], "price": None,
        "images": [
            {"thumb": f"{HOST}/t.jpg", "large": f"{HOST}/images/I/{item}.jpg", "variant": "MAIN",
             "hi_res": None},
            {"thumb": "x", "large": f"{HOST}/o.jpg", "variant": "PT01", "hi_res": None},
        ],
        "videos": [], "store": "Howard", "categories": ["Beauty", "Soap"],
        "details": {"Package Dimensions": "7 x 5"}, "parent_asin": item, "bought_together": None,
        **changed,
    }  # fmt: skip


def reviews() -> list[dict]:
    pairs = grid(USERS, ASINS)
    return [review(u, i, START + 1000 * n, 1.0 + n % 5) for n, (u, i) in enumerate(pairs)]


def lines(entries: list[dict]) -> bytes:
    return b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)


def amazon2023(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "All_Beauty.jsonl").write_bytes(lines(reviews()))
    with gzip.open(folder / "meta_All_Beauty.jsonl.gz", "wb") as handle:
        handle.write(lines([meta(item) for item in [*ASINS[:6], "B0OTHER000"]]))
    return grid(USERS, ASINS)


def amazon2023_split(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    entries = reviews()
    for number, part in enumerate(("train", "valid", "test")):
        rows = [
            f"{e['user_id']},{e['parent_asin']},{e['rating']},{e['timestamp']}"
            for n, e in enumerate(entries)
            if (n % 6 < 4, n % 6 == 4, n % 6 == 5)[number]
        ]
        text = "\n".join(["user_id,parent_asin,rating,timestamp", *rows]) + "\n"
        (folder / f"All_Beauty.{part}.csv").write_text(text)
    return grid(USERS, ASINS)


# MicroLens ----------------------------------------------------------------------------------------

VIDEOS = ["1", "2", "63", "65", "109", "111"]  # with gaps


def microlens(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = grid(["36", "37", "4000"], VIDEOS)
    rows = [f"{u},{i},{1583378629552 + n}" for n, (u, i) in enumerate(pairs)]
    (folder / "MicroLens-50k_pairs.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    titles = [
        "item,title", '1,"Funny cat, again 😺 #cat"', "2,plain", '63,"say ""hi"""', "65,",
        '109,"two\nlines"', "7000,not there",
    ]  # fmt: skip
    (folder / "MicroLens-50k_titles.csv").write_text("\n".join(titles) + "\n", encoding="utf-8")
    image(folder / "MicroLens-50k_covers" / "63.jpg")
    image(folder / "MicroLens-50k_covers" / "111.png")
    (folder / "MicroLens-50k_likes_and_views.txt").write_text("1\t100\t200\n")
    return pairs


def microlens_histories(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = grid(["36", "37", "4000"], VIDEOS)
    rows = [f"{u}\t{' '.join(i for v, i in pairs if v == u)}" for u in ("36", "37", "4000")]
    (folder / "MicroLens-50k_pairs.tsv").write_text("\n".join(rows) + "\n")
    return pairs


# MMSSL and LATTICE --------------------------------------------------------------------------------


def mmssl(folder: Path) -> Pairs:
    (folder / "5-core").mkdir(parents=True, exist_ok=True)
    splits: dict[str, dict[str, list[int]]] = {
        "train": {"0": [0, 1, 2], "1": [1, 4], "10": [0, 3]},
        "val": {"0": [4], "1": [2], "10": []},
        "test": {"0": [3], "1": [0], "10": [2]},
    }
    for part, content in splits.items():
        (folder / "5-core" / f"{part}.json").write_text(json.dumps(content))
    rows = np.arange(20, dtype=np.float64).reshape(5, 4)
    np.save(folder / "text_feat.npy", rows)
    np.save(folder / "image_feat.npy", -rows)
    return [(u, str(i)) for content in splits.values() for u, some in content.items() for i in some]


# H&M ----------------------------------------------------------------------------------------------

CUSTOMERS = [
    f"{n:02d}0058a309bd6f78e93f1bd0a4ad2e4b7ae5a4a1a4d0f3bf2b8ce3cf1e9a9b" for n in range(7)
]
ARTICLES = [f"01087750{n}5" for n in range(7)]
ARTICLE_COLUMNS = (
    "article_id,product_code,prod_name,product_type_name,colour_group_name,detail_desc"
)


def hm(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = grid(CUSTOMERS, ARTICLES)
    rows = [
        f"2018-09-{20 + n % 10},{u},{i},0.050830508474576264,2" for n, (u, i) in enumerate(pairs)
    ]
    rows.append(f"2020-01-01,{pairs[0][0]},{pairs[0][1]},0.03,1")  # bought again
    head = "t_dat,customer_id,article_id,price,sales_channel_id"
    (folder / "transactions_train.csv").write_text("\n".join([head, *rows]) + "\n")
    texts = [
        f'{i},108775,Strap top,Vest top,Black,"Jersey top, with ""narrow"" straps."'
        for i in ARTICLES
    ]
    (folder / "articles.csv").write_text("\n".join([ARTICLE_COLUMNS, *texts]) + "\n")
    (folder / "customers.csv").write_text("customer_id,FN\n")
    image(folder / "images" / ARTICLES[0][:3] / f"{ARTICLES[0]}.jpg")
    return pairs


# PixelRec and NineRec -----------------------------------------------------------------------------


def pixelrec(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = grid(["u1", "u2"], ["i0", "i17", "i408373"])
    rows = [f"{i},{u},{1600000000 + n}" for n, (u, i) in enumerate(pairs)]
    (folder / "Pixel200K.csv").write_text("\n".join(["item_id,user_id,timestamp", *rows]) + "\n")
    (folder / "Pixel200K_item_info.csv").write_text(
        "item_id,view_number,comment_number,title,tag,description\n"
        'i0,12,3,"猫, 可爱",animals,"a\nb"\ni17,1,0,second,music,\n'
    )
    image(folder / "covers" / "i17.jpg")
    return pairs


def ninerec(folder: Path) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = grid(["u1", "u2"], ["10", "20", "30"])
    (folder / "QB_pair.csv").write_text("".join(f"{u},{i}\n" for u, i in pairs))
    (folder / "QB_item.csv").write_text('10,"标题",title one\n20,二,"two, three"\n')
    image(folder / "QB_cover" / "30.jpg")
    return pairs


WRITERS: dict[str, Callable[[Path], Pairs]] = {
    "amazon2023": amazon2023, "microlens": microlens, "mmssl": mmssl, "hm": hm,
    "pixelrec": pixelrec, "ninerec": ninerec,
}  # fmt: skip
