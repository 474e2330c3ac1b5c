"""Drives a checkout of enoche/MMRec, or of a fork of it, without changing its files.

The official AlignRec code is such a fork. Only timings may use a GPU. What the code lacks on
today's packages is supplied from outside: `.cuda()` as the identity, `.to` of a parameter as on a
GPU, names that numpy and scipy have removed, the part of torch_scatter and torch_geometric that is
used, and imports that are not used here. Mistakes that ours does not follow are mended (`MENDS`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import inspect
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from alignrec_recbole.errors import DataError
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.user_item import user_cooccurrence_graph
from benchmarks.reference.epoch_timer import epoch_seconds

FILES = {"text": "text_feat.npy", "image": "image_feat.npy"}
USER_GRAPH, ITEM_GRAPH = "user_graph_dict.npy", "item_graph_dict_2.npy"
ITEM_NEIGHBOURS, COMMON_USERS = 2, 2  # at most and at least, of DA-MRS's script
DGMREC = "github.com/ptkjw1997/DGMRec"  # it writes files and validates every third epoch
SOURCES = {
    "freedom": "github.com/enoche/MMRec",
    "alignrec": "github.com/sjtulyf123/AlignRec_CIKM24",
    "gume": "github.com/NanGongNingYi/GUME",
    "mentor": "github.com/Jinfeng-Xu/MENTOR",
    "soil": "github.com/TL-UESTC/SOIL",
    "cohesion": "github.com/Jinfeng-Xu/COHESION",
    "freedom_vp": "github.com/Jinfeng-Xu/MDVT",
    "freedom_plus": "github.com/Jinfeng-Xu/NLGCL-Plus",
    "msca": "github.com/enoche/MMRec, with its pull request 63",
    "rearm": "github.com/MrShouxingMa/REARM",
    "milk": DGMREC,
    "sibrar": DGMREC,
}


def _scatter_add(values: torch.Tensor, index: torch.Tensor, dim: int, dim_size: int) -> Any:
    assert dim == 0
    return values.new_zeros(dim_size, *values.shape[1:]).index_add_(0, index, values)


class _MessagePassing(torch.nn.Module):
    """What is used of torch_geometric's: messages of the senders, summed or averaged by receiver.

    `message` asks for arguments by name: _j is the sender's, _i the receiver's.
    """

    message: Callable[..., torch.Tensor]
    update: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, aggr: str = "add") -> None:
        super().__init__()
        self.aggr = aggr

    def propagate(self, edge_index: torch.Tensor, size: Any = None, *, x: torch.Tensor) -> Any:
        sender, receiver = edge_index
        known = {
            "x_i": x[receiver], "x_j": x[sender], "size": size, "size_i": len(x),
            "edge_index": edge_index, "edge_index_i": receiver,
        }  # fmt: skip
        wanted = inspect.signature(self.message).parameters
        out = _scatter_add(self.message(**{n: known[n] for n in wanted}), receiver, 0, len(x))
        if self.aggr == "mean":
            out = out / torch.bincount(receiver, minlength=len(x)).clamp(min=1)[:, None]
        return self.update(out)


def _without_loops(edges: torch.Tensor) -> tuple[torch.Tensor, None]:
    return edges[:, edges[0] != edges[1]], None


def _with_all_edges(edges: torch.Tensor, p: float) -> tuple[torch.Tensor, None]:
    assert p == 0
    return edges, None


def _degree(index: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.bincount(index, minlength=size).to(dtype)


def _softmax_by_group(scores: torch.Tensor, group: torch.Tensor, num_nodes: int) -> torch.Tensor:
    share = scores.exp()
    return share / _scatter_add(share, group, 0, num_nodes)[group]


def _uniform(size: int, tensor: torch.Tensor) -> None:
    torch.nn.init.uniform_(tensor, -(size**-0.5), size**-0.5)


AT_TOP = {"soil", "rearm"}  # codes without a folder `src`
MODULES = {"rearm": "model.py"}  # by which a code is recognised, if not by that of its model
ELSEWHERE = {"gume": "models/milk.py"}  # of another code that has the model, too


STAND_INS: dict[str, dict[str, Any]] = {
    "torch_scatter": {"scatter_add": _scatter_add, "scatter": None},
    "torch_sparse": {},
    "torch_geometric": {},
    "torch_geometric.nn": {"MessagePassing": _MessagePassing},
    "torch_geometric.nn.conv": {"MessagePassing": _MessagePassing},
    "torch_geometric.nn.inits": {"uniform": _uniform},
    "torch_geometric.utils": {
        "add_self_loops": None,
        "degree": _degree,
        "dropout_adj": _with_all_edges,
        "remove_self_loops": _without_loops,
        "softmax": _softmax_by_group,
    },
    "sparsesvd": {"sparsesvd": None},
    "tensorboardX": {"SummaryWriter": None},
    "matplotlib": {},
    "matplotlib.pyplot": {},
    "torchvision": {},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {"pad": None, "resize": None},
}


class NoneDict(dict):
    """A dict that gives None for a missing key, as the Config of RecBole and MMRec does."""

    def __missing__(self, key: str) -> None:
        return None


def is_of(reference: Path, model: str) -> bool:
    """Whether a folder is a checkout of the code that has this model."""
    source = _source(reference, model)
    other = model in ELSEWHERE and (source / ELSEWHERE[model]).is_file()
    return (source / _module(model)).is_file() and not other


def _module(model: str) -> str:
    return MODULES.get(model, f"models/{model}.py")


def _source(reference: Path, model: str) -> Path:
    """The folder of its modules: `src`, or the checkout itself."""
    inner = reference / "src"
    return inner if inner.is_dir() or model not in AT_TOP else reference


def _mend_soil() -> None:
    """Both sides of a matrix of users and items divided by their own degrees (soil.py D1).

    Its code reads the items' degrees from the users with their numbers, of which there may be none.
    """
    utils: Any = importlib.import_module("utils.utils")
    square = utils.build_graph_from_adj

    def build(adj: torch.Tensor, **keywords: Any) -> torch.Tensor:
        if adj.shape[0] == adj.shape[1]:
            return square(adj, **keywords)
        adj = adj.coalesce()
        row, column = adj.indices()
        degrees = [
            _scatter_add(adj.values(), ends, 0, count)
            for ends, count in zip((row, column), adj.shape, strict=True)
        ]
        weight = adj.values() * (degrees[0][row] * degrees[1][column]).rsqrt()
        return torch.sparse_coo_tensor(adj.indices(), weight, adj.shape)

    utils.build_graph_from_adj = build


PLACED = {"rearm"}  # codes whose `.to` of a parameter changes nothing on a GPU either

MENDS = {"soil": _mend_soil}  # mistakes that end in an error, or that ours does not follow


@contextlib.contextmanager
def importable(reference: Path, model: str, device: str = "cpu") -> Iterator[None]:
    """Make the checkout's modules importable on this machine.

    Args:
        model: a module of `src/models` by which the code is recognised; one of `SOURCES`.
        device: where its tensors are wanted, cpu or cuda.

    Raises:
        DataError: the folder is not a checkout of that code.
    """
    source = _source(reference, model)
    if not is_of(reference, model):
        raise DataError(
            f"This is no checkout of {SOURCES[model]}.",
            found=str(reference),
            expected=f"a folder with {'' if model in AT_TOP else 'src/'}{_module(model)}",
            hint=f"clone {SOURCES[model]} and pass its root",
        )
    for name, kind in (("float", np.float64), ("int", np.int64)):
        if name not in np.__dict__:
            setattr(np, name, kind)
    if not hasattr(sp.dok_matrix, "_update"):  # removed in scipy 1.13
        sp.dok_matrix._update = lambda matrix, data: matrix._dict.update(data)
    for name, attributes in STAND_INS.items():
        _stand_in(name, attributes)
    sys.path.insert(0, str(source))
    try:
        patched = device == "cpu" and model not in PLACED
        with _cuda_is_the_cpu() if patched else contextlib.nullcontext():
            MENDS.get(model, lambda: None)()
            yield
    finally:
        sys.path.remove(str(source))
        for name, module in list(sys.modules.items()):  # another checkout has the same names
            places = [getattr(module, "__file__", None), *vars(module).get("__path__", [])]
            if any(str(place).startswith(str(source)) for place in places):
                del sys.modules[name]


@contextlib.contextmanager
def _cuda_is_the_cpu() -> Iterator[None]:
    cuda = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign, assignment]
    # On the CPU `.to` gives the parameter itself, which these codes then overwrite by a tensor.
    torch.nn.Parameter.to = lambda self, *a, **k: self.view_as(self).to(*a, **k)  # type: ignore
    try:
        yield
    finally:
        torch.Tensor.cuda = cuda  # type: ignore[method-assign]
        del torch.nn.Parameter.to


def _stand_in(name: str, attributes: dict[str, Any]) -> None:
    """Add missing attributes to a package, or to an empty module in its place."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = sys.modules[name] = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
    for attribute, value in attributes.items():
        if not hasattr(module, attribute):
            setattr(module, attribute, value)


@contextlib.contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    """The default type of new tensors inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def given(
    features: dict[str, np.ndarray],
    interactions: Any,
    settings: dict[str, Any],
    places: list[np.ndarray] | None = None,
) -> Iterator[tuple[NoneDict, Any]]:
    """Arguments of a model's constructor: configuration and loader of synthetic data.

    Args:
        features: text, image: [I, f].
        interactions: a scipy matrix [U, I].
        places: of the users and of the items among equals, by their numbers; default: in order.
    """
    users, items = interactions.shape
    of_users, of_items = places or [np.arange(count) for count in interactions.shape]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "toy").mkdir()
        for kind, values in features.items():
            np.save(Path(folder) / "toy" / FILES[kind], values)
        _save_graph(Path(folder) / "toy" / USER_GRAPH, interactions, 200, of_users)
        _save_item_graph(Path(folder) / "toy" / ITEM_GRAPH, interactions, of_items)
        config = NoneDict(
            USER_ID_FIELD="u", ITEM_ID_FIELD="i", NEG_PREFIX="neg_", device="cpu", end2end=False,
            is_multimodal_model=True, multimodal_data_dir="", data_path=f"{folder}/",
            dataset="toy", vision_feature_file=FILES["image"], text_feature_file=FILES["text"],
            user_graph_dict_file=USER_GRAPH, item_graph_dict_file=ITEM_GRAPH, **settings,
        )  # fmt: skip
        loader = types.SimpleNamespace(
            inter_matrix=lambda form: interactions.tocoo(),
            history_items_per_u=_items_of(interactions),
            dataset=types.SimpleNamespace(get_user_num=lambda: users, get_item_num=lambda: items),
        )
        yield config, loader


def _items_of(interactions: Any) -> dict[int, set[int]]:
    """The items of every user who has any."""
    rows = interactions.tocsr()
    return {
        user: set(rows.indices[start:stop].tolist())
        for user, (start, stop) in enumerate(itertools.pairwise(rows.indptr))
        if stop > start
    }


def _save_graph(path: Path, interactions: Any, k: int, place: np.ndarray, least: int = 1) -> None:
    """What preprocessing writes: user → [ids, numbers of common items], the k largest.

    Equal numbers stand there in an order that torch.topk leaves open; here in that of our graph,
    `place` of each user. Numbers below `least` are not written.
    """
    graph = user_cooccurrence_graph(interactions.nonzero(), interactions.shape, k, place)
    rows = {}
    for user, (start, stop) in enumerate(itertools.pairwise(graph.indptr)):
        others, common = graph.indices[start:stop], graph.data[start:stop]
        order = np.lexsort((place[others], -common))
        order = order[common[order] >= least]
        rows[user] = [part[order].tolist() for part in (others, common)]
    np.save(path, rows, allow_pickle=True)  # type: ignore[arg-type]


def _save_item_graph(path: Path, interactions: Any, place: np.ndarray) -> None:
    """What DA-MRS's preprocessing writes: item → [ids, numbers of common users]."""
    _save_graph(path, interactions.T.tocsr(), ITEM_NEIGHBOURS, place, COMMON_USERS)


def _enter_copy(
    reference: Path,
    code: str,
    name: str,
    dataset_dir: Path,
    features: dict[str, Path],
    folder: Path,
) -> None:
    """A scratch copy with the data in its layout; the working directory moves into it."""
    model = _source(reference, code) / "models" / f"{name.lower()}.py"
    dataset = dataset_dir.name
    source = _source(reference, code)
    shutil.copytree(source, folder / "src", ignore=shutil.ignore_patterns(".git", "data"))
    target = folder / "data" / dataset
    target.mkdir(parents=True)
    frame = pd.read_csv(dataset_dir / f"{dataset}.inter", sep="\t")
    if "timestamp" not in frame:  # its loader insists on this column
        frame["timestamp"] = 0
    text = model.read_text(encoding="utf-8") if model.is_file() else ""
    rows = frame[frame.x_label == 0]
    shape = frame.userID.max() + 1, frame.itemID.max() + 1
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows.userID, rows.itemID)), shape=shape)
    places = [tie_ranks(["[PAD]", *map(str, range(count))])[1:] for count in shape]
    if "user_graph_dict_file" in text:
        _save_graph(target / USER_GRAPH, matrix, 200, places[0])
    if "item_graph_dict_file" in text:
        _save_item_graph(target / ITEM_GRAPH, matrix, places[1])
    frame.to_csv(target / f"{dataset}.inter", sep="\t", index=False)
    for kind, path in features.items():
        shutil.copyfile(path, target / FILES[kind])
    (folder / "src" / "configs" / "dataset" / f"{dataset}.yaml").write_text(
        "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\nTIME_FIELD: timestamp\n"
        f"filter_out_cod_start_users: True\ninter_file_name: '{dataset}.inter'\n"
        f"vision_feature_file: {FILES['image']}\ntext_feature_file: {FILES['text']}\n"
        f'user_graph_dict_file: {USER_GRAPH}\nfield_separator: "\\t"\n'
    )
    os.chdir(folder if code in AT_ROOT else folder / "src")


AT_ROOT = {"gume"}  # codes that run one folder above `src`, which they put before their data


def _places(code: str) -> dict[str, Any]:
    data = "/data/" if code in AT_ROOT else "../data/"
    own = {"save_name": "run.log", "eval_step": 1} if SOURCES[code] == DGMREC else {}
    return {"gpu_id": 0, "use_gpu": False, "multimodal_data_dir": "", "data_path": data, **own}


def _tool(folder: Path, name: str) -> Any:
    """A module of the harness, which some forks of MMRec have in a package of another name."""
    packages = ("utils", "utils_package")
    package = next(one for one in packages if (folder / "src" / one).is_dir())
    return importlib.import_module(f"{package}.{name}")


def train(
    reference: Path,
    model: str,
    name: str,
    dataset_dir: Path,
    features: dict[str, Path],
    settings: dict[str, Any],
    seeds: list[int],
) -> list[dict[str, Any]]:
    """Train with the code's own harness in a scratch folder and a process of its own.

    Args:
        model: as of `importable`.
        name: of the model, as that harness wants it.
        features: files for text and image, row = itemID.
        settings: of that harness.

    Returns:
        one dict a seed: valid, test (metrics at the best validation epoch), epochs, losses.
    """
    order = {
        "reference": str(reference.resolve()), "model": model, "name": name,
        "dataset_dir": str(dataset_dir.resolve()), "settings": settings, "seeds": seeds,
        "features": {kind: str(path.resolve()) for kind, path in features.items()},
    }  # fmt: skip
    return in_a_process(__name__, order)


def in_a_process(module: str, order: dict[str, Any]) -> Any:
    """What a module prints last, as JSON, when it is run with a JSON argument."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, json.dumps(order)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with an error; see above.")
    return json.loads(done.stdout.splitlines()[-1])


def _train_here(
    reference: str,
    model: str,
    name: str,
    dataset_dir: str,
    features: dict[str, str],
    settings: dict[str, Any],
    seeds: list[int],
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    dataset = Path(dataset_dir).name
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(path) for kind, path in features.items()}
        _enter_copy(Path(reference), model, name, Path(dataset_dir), files, Path(folder))
        with importable(Path(folder), model):
            quick_start = _tool(Path(folder), "quick_start")
            from common import trainer as trainers

            original = trainers.Trainer.fit

            def fit(self: Any, *arguments: Any, **keywords: Any) -> Any:
                best, valid, test = original(self, *arguments, **keywords)
                losses = [float(loss) for loss in self.train_loss_dict.values()]
                results.append({"valid": dict(valid), "test": dict(test), "losses": losses,
                                "epochs": len(losses)})  # fmt: skip
                print(f"reference: {name} {results[-1]['test']}", file=sys.stderr)
                return best, valid, test

            trainers.Trainer.fit = fit
            logging.disable(logging.CRITICAL)
            quick_start.init_logger = lambda config: "now"  # GUME's is asked for the time
            asked = {"hyper_parameters": ["seed"], **_places(model), **settings, "seed": seeds}
            with contextlib.redirect_stdout(sys.stderr):
                quick_start.quick_start(name, dataset, asked, save_model=False)
    return results


def actions(
    reference: Path,
    model: str,
    name: str,
    dataset_dir: Path,
    features: dict[str, Path],
    settings: dict[str, Any],
    folder: Path,
    steps: int | None = None,
    device: str = "cpu",
) -> dict[str, Callable[[], Any]]:
    """Training epoch and validation of the code's own harness, in this process (for timing).

    Args:
        folder: a scratch folder; the working directory moves into it.
        steps: extrapolate the epoch's seconds from so many (`epoch_seconds`).
        device: cpu or cuda.
    """
    _enter_copy(reference, model, name, dataset_dir, features, folder)
    opened = contextlib.ExitStack()
    opened.enter_context(importable(folder, model, device))
    settings = {**_places(model), **settings, "use_gpu": device != "cpu"}
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(sys.stderr):
        loaders, tools = _tool(folder, "dataloader"), _tool(folder, "utils")
        config = _tool(folder, "configurator").Config(
            name, dataset_dir.name, {**settings, "seed": 999}
        )
        for key, value in settings.items():
            config[key] = value
        whole = _tool(folder, "dataset").RecDataset(config)
        train, valid, _ = whole.split()
        for part in (whole, train, valid):
            str(part)  # counts users and items, which the loaders then read
        data = loaders.TrainDataLoader(
            config, train, batch_size=config["train_batch_size"], shuffle=True
        )
        task = loaders.EvalDataLoader(
            config, valid, additional_dataset=train, batch_size=config["eval_batch_size"]
        )
        tools.init_seed(999)
        data.pretrain_setup()
        network = tools.get_model(name)(config, data).to(config["device"])
        trainer = tools.get_trainer()(config, network)

    def run(batches: Any) -> None:
        network.pre_epoch_processing()
        trainer._train_epoch(batches, 0)

    def epoch() -> float:
        data.pr = data.inter_pr = 0  # an epoch that was left early stands where it was left
        return epoch_seconds(run, data, steps)

    return {"epoch": epoch, "evaluation": lambda: (opened, trainer.evaluate(task))[1]}


if __name__ == "__main__":
    print(json.dumps(_train_here(**json.loads(sys.argv[1]))))
