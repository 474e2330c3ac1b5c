"""Adam and AdamW without torch's compiler, which torch.optim loads to guard itself against it.

That takes nearly two seconds and 50 MB of every run, and nothing here compiles an optimizer. The
methods are torch's own, from under their guards: weights and states are the same to the last bit.
"""

from __future__ import annotations

import inspect

import torch

_GUARDED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


def _unguarded(kind: type[torch.optim.Adam]) -> type[torch.optim.Adam]:
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _GUARDED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


Adam = _unguarded(torch.optim.Adam)
AdamW = _unguarded(torch.optim.AdamW)
