"""What each kind of figure shows, in one sentence."""

from __future__ import annotations

CAPTIONS = {
    "protocols": "Test metric of every row by protocol; dotted: chance; bars over seeds and, where "
    "values per user are stored, over users: 95 % intervals",
    "beyond-accuracy": "Test metric against what the lists are like; a dot per row, variants small",
    "robustness": "Test metric by the share of masked items; bands: 95 % interval over mask seeds; "
    "dotted: chance",
    "long-tail": "Test metric by the user's history and by the item's popularity; bars: 95 % "
    "interval over seeds; n: users or items",
    "cost": "Test metric against time and memory of a run, machine by machine; dotted: the Pareto "
    "front; variants small",
    "training": "Validation metric and loss by epoch, mean of the seeds; bands: lowest to highest "
    "seed; dots: the epochs ranked",
    "knock-out": "Test metric above the model's ID-only twin; bars: 95 % interval",
    "sensitivity": "Best validation score by the values tried, a panel per model and setting",
    "audit": "What each check of the audit found, beside the same where nothing can be known: the "
    "control with its range, and chance; colour and shape: the verdict",
    "budget": "Best validation score by epochs of the search, and by trials in random order",
}
KINDS = tuple(CAPTIONS)
