"""What bounds AlignRec's training step: work of each part against this machine's measured limits.

    python -m benchmarks.speed.roofline [--users 35598] [--items 18357] [--pairs 218409]
        [--width 768] [--batch 2048]

FLOPs and bytes are counted from the formulas (a product of [n, k] and [k, m] is 2nkm FLOPs; bytes
are operands read once and results written once, gathered rows counted an edge). Limits: the best
float32 product, copy and row gather measured here. A part cannot take less than the larger of
FLOPs ÷ FLOP/s and bytes ÷ bytes/s; `reached` is that bound ÷ the measured time. The batch's users
and items all differ here; a real step counts repeated ones instead of computing them again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency, normalised_interactions
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.runtime import allocator, hardware
from benchmarks.speed import paired_timing

D, K = 64, 10


def seconds_of(action: Callable[[], object], rounds: int = 15) -> float:
    """Median wall time."""
    action()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def limits() -> dict[str, float]:
    """FLOP/s of a large float32 product, bytes/s of a copy and of gathering 256-byte rows."""
    square = torch.randn(2048, 2048)
    source, target = torch.randn(32 << 20), torch.empty(32 << 20)
    table, rows = torch.randn(54_000, D), torch.randint(54_000, (400_000,))
    into = torch.empty(400_000, D)
    return {
        "flops": 2 * 2048**3 / seconds_of(lambda: matmul_nt(square, square)),
        "copy": 2 * source.nbytes / seconds_of(lambda: target.copy_(source)),
        "gather": 2 * into.nbytes
        / seconds_of(lambda: torch.index_select(table, 0, rows, out=into)),
    }  # fmt: skip


def parts(
    users: int, items: int, pairs: int, width: int, batch: int
) -> dict[str, tuple[Callable[[], object], float, float, str]]:
    """Part → (action, FLOPs, bytes, kind of bytes)."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(users, size=pairs), rng.integers(items, size=pairs)
    graph = bipartite_adjacency(normalised_interactions(drawn, (users, items)))
    neighbours = SparseOperator(
        sp.csr_matrix(
            (np.full(items * K, 0.1), rng.integers(items, size=items * K),
             np.arange(items + 1) * K), shape=(items, items),
        )
    )  # fmt: skip
    nodes, content = torch.randn(users + items, D), torch.randn(items, D)
    features = torch.randn(items, width, requires_grad=True)
    weight, bias = torch.randn(D, width, requires_grad=True), torch.zeros(D, requires_grad=True)
    gate = linear(features, weight, bias)
    slope = torch.randn(items, D)
    left = torch.randn(batch, D, requires_grad=True)
    right = torch.randn(batch, D, requires_grad=True)
    target = torch.randn(batch, width)
    adam = torch.optim.Adam([features, torch.nn.Parameter(nodes.clone())], fused=True)
    for group in adam.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn_like(parameter)

    def gate_backward() -> object:
        return torch.autograd.grad(gate, (features, weight, bias), slope, retain_graph=True)

    def contrast() -> object:
        return torch.autograd.grad(losses.info_nce(left, right, 0.2), (left, right))

    def gram() -> object:
        return torch.autograd.grad(losses.similarity_matrix_distance(left, target), left)

    product = 2.0 * items * width * D
    table = 4.0 * items * width
    edges, near = graph.csr.nnz, neighbours.csr.nnz
    width_strips = sum(width - start for start in range(0, width, losses.SIMILARITY_BLOCK_COLUMNS))
    numbers = features.numel() + nodes.numel()
    return {
        "Â X": (
            lambda: graph.forward_product(nodes),
            2.0 * edges * D,
            edges * (4 * D + 12) + nodes.nbytes,
            "gather",
        ),
        "S X": (
            lambda: neighbours.forward_product(content),
            2.0 * near * D,
            near * (4 * D + 12) + content.nbytes,
            "gather",
        ),
        "gate": (lambda: linear(features, weight, bias), product, table, "copy"),
        "gate, backward": (gate_backward, 2 * product, 2 * table, "copy"),
        "CCA of one view, with backward": (
            contrast, 3 * 2.0 * batch * batch * D, 4.0 * 2 * batch * batch, "copy",
        ),
        "REG, with backward": (
            gram,
            2.0
            * batch
            * (losses.SIMILARITY_BLOCK_COLUMNS * width_strips + 2 * D * width + 2 * D * D),
            4.0 * batch * width,
            "copy",
        ),
        "Adam": (adam.step, 12.0 * numbers, 4.0 * 7 * numbers, "copy"),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.roofline")
    parser.add_argument("--users", type=int, default=35_598)
    parser.add_argument("--items", type=int, default=18_357)
    parser.add_argument("--pairs", type=int, default=218_409)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=2048)
    options = parser.parse_args(arguments)
    hardware.set_threads(None)
    allocator.phase("train")
    paired_timing.warn_if_busy()
    machine = limits()
    print(
        f"limits: {machine['flops'] / 1e9:.0f} GFLOP/s, copy {machine['copy'] / 1e9:.0f} GB/s, "
        f"gather {machine['gather'] / 1e9:.0f} GB/s"
    )
    found, rows = {}, []
    made = parts(options.users, options.items, options.pairs, options.width, options.batch)
    for name, (action, flops, moved, kind) in made.items():
        taken = seconds_of(action)
        arithmetic, memory = flops / machine["flops"], moved / machine[kind]
        bound = "arithmetic" if arithmetic > memory else kind
        reached = max(arithmetic, memory) / taken
        found[name] = {"seconds": taken, "flops": flops, "bytes": moved, "bound": bound,
                       "reached": reached}  # fmt: skip
        rows.append([name, f"{taken * 1e3:.2f}", f"{flops / 1e9:.2f}", f"{moved / 1e6:.0f}",
                     bound, f"{reached:.0%}"])  # fmt: skip
    print(tabulate(rows, ["part", "ms", "GFLOP", "MB", "bound by", "reached"]))
    paired_timing.finish({"benchmark": "roofline", "limits": machine, "parts": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
