"""The verb `merge-shards`: join the parts that `prepare --shard` has written."""

from __future__ import annotations

from typing import Any

from alignrec_recbole.cli._option_values import ItemOptions
from alignrec_recbole.cli._verb import verb
from alignrec_recbole.cli.prepare import item_options


@verb(
    name="merge-shards",
    examples=(
        "merge-shards --dataset shop --encoder minilm",
        "merge-shards --dataset shop --name beit3-base --export-mmrec mmrec/shop",
    ),
)
@item_options
def merge_shards(**given: Any) -> int:
    """Join the parts that `prepare --shard I/N` has written."""
    from alignrec_recbole.cli import _prepare

    return _prepare.merge(ItemOptions(**given))
