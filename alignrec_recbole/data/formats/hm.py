"""H&M: transactions, articles and images of the Kaggle competition.

    transactions_train.csv    t_dat,customer_id,article_id,price,sales_channel_id
    articles.csv              article_id, prod_name, detail_desc and other columns
    images/010/0108775015.jpg the first three digits, then the article; some are absent

Article ids are text and start with a zero. A row is a purchase: the first of a customer's purchases
of an article is the interaction. Times are days, as seconds since 1970.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from alignrec_recbole.data.formats.collecting import Rows, add_file, read_content
from alignrec_recbole.data.formats.finding import find_one, required
from alignrec_recbole.data.source import IMAGE, ITEM, Source, no_items
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.separated import SeparatedFile

TEXTS = (
    "prod_name", "product_type_name", "product_group_name", "graphical_appearance_name",
    "colour_group_name", "department_name", "index_name", "section_name", "garment_group_name",
    "detail_desc",
)  # fmt: skip
ID_LENGTH = 10  # of an article; nine digits: the zero was lost


def read(folder: Path, bad: Counter[str] | None = None) -> Source:
    """The purchases, and texts and images of the articles.

    Raises:
        DataError: a file is missing or damaged, a line cannot be used (with its number), or article
            ids have lost their zero.
    """
    found = find_one(folder, "transactions", (".csv", ".csv.gz"), "transactions")
    path = required(found, folder, "transactions_train.csv")
    articles = find_one(folder, "articles", (".csv", ".csv.gz"), "articles")
    rows = Rows(bad)
    file = SeparatedFile(path, what="file of transactions", bad=bad)
    add_file(rows, file, "customer_id", "article_id", time="t_dat")
    frame = rows.frame(path)
    _check_zeros(path, rows.items.names())
    images = Path(folder) / "images"
    return Source(
        "H&M",
        frame,
        (path,),
        (lambda wanted: read_items(articles, images, wanted)) if articles else no_items,
        core=5,
        notes={"articles": articles.name if articles else "none"},
    )


def _check_zeros(path: Path, items: list[str]) -> None:
    short = next((item for item in items if item.isdecimal() and len(item) < ID_LENGTH), None)
    if short is not None:
        raise DataError(
            f"{path.name} has article ids that have lost their leading zero.",
            found=f"{short!r}, {len(short)} digits",
            expected=f"{ID_LENGTH} digits",
            hint="a program read the ids as numbers: use the file as it was downloaded",
        )


def read_items(path: Path, images: Path, wanted: Collection[str]) -> pd.DataFrame:
    """Texts and image files of articles.

    Raises:
        DataError: the file is damaged, its ids have lost their zero, or one leads out of `images`.
    """
    file = SeparatedFile(path, what="file of articles")
    file.require(["article_id", "prod_name"])
    frame = read_content(file, "article_id", TEXTS, wanted)
    if frame.empty:
        first = next(iter(file.batches(["article_id"])), None)
        _check_zeros(path, first.cells[0][:1] if first else [])
    paths = [inside(images, f"{item[:3]}/{item}.jpg") for item in frame[ITEM]]
    frame[IMAGE] = [str(path) if is_regular_file(path) else "" for path in paths]
    return frame
