"""The public Amazon files of 2014 and 2018 to an item table, interactions, features.

    meta_*.json.gz           one Python literal (or JSON object) per line
    ratings_*.csv            see ratings.py; or reviews_*_5.json.gz
    image_features_*.b       records of a 10-byte ASIN and 4096 float32
    i_id_mapping.csv, u_id_mapping.csv   MMRec's numbers, optional

Everything is read as a stream; lines are parsed as literals and never executed. Features and texts
are joined with a released split by ASIN, through MMRec's mapping.
"""

from alignrec_recbole.data.amazon.image_features import write_image_features
from alignrec_recbole.data.amazon.interactions import (
    load_interactions,
    rating_columns,
    read_interactions,
)
from alignrec_recbole.data.amazon.items import TEXT_COLUMNS, image_name, write_items
from alignrec_recbole.data.amazon.lines import ParseStats
from alignrec_recbole.data.amazon.mapping import (
    IdMapping,
    check_ids,
    find_id_mapping,
    write_mapping,
)
from alignrec_recbole.data.amazon.metadata import MetaItem, read_meta
from alignrec_recbole.data.amazon.ratings import USER_FIRST
from alignrec_recbole.data.amazon.raw_files import find_raw

__all__ = [
    "TEXT_COLUMNS",
    "USER_FIRST",
    "IdMapping",
    "MetaItem",
    "ParseStats",
    "check_ids",
    "find_id_mapping",
    "find_raw",
    "image_name",
    "load_interactions",
    "rating_columns",
    "read_interactions",
    "read_meta",
    "write_image_features",
    "write_items",
    "write_mapping",
]
