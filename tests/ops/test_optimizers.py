"""Adam and AdamW without torch's guards against its compiler: the same steps, no compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from alignrec_recbole.ops import optimizers


def trained(kind, *, saved_after: int | None = None, **options):
    """Parameters and state after six steps on both kinds of use; optionally through a state."""
    torch.manual_seed(0)
    table, layer = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 3)
    parameters = [table, *layer.parameters()]
    optimizer = kind(parameters, lr=0.1, **options)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    for step in range(6):
        if step == saved_after:
            state = optimizer.state_dict()
            optimizer = kind(parameters, lr=0.5)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        assert all(p.grad is None for p in parameters)
        layer(table).square().sum().backward()
        optimizer.step()
    if saved_after is None:
        assert len(seen) == 6
    return [*parameters, *(v for p in parameters for v in optimizer.state[p].values())]


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("options", [{"fused": True}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("saved_after", [None, 3])
def test_steps_and_states_are_torchs_to_the_last_bit(name, options, saved_after):
    ours = trained(getattr(optimizers, name), saved_after=saved_after, **options)
    theirs = trained(getattr(torch.optim, name), **options)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_they_are_torchs_by_kind():
    assert issubclass(optimizers.Adam, torch.optim.Adam)
    assert issubclass(optimizers.AdamW, torch.optim.AdamW)
    assert not issubclass(optimizers.Adam, torch.optim.AdamW)


def test_the_compiler_is_loaded_by_torchs_and_not_by_ours():
    code = (
        "import sys, torch; from alignrec_recbole.ops.optimizers import Adam, AdamW\n"
        "for kind in Adam, AdamW, torch.optim.Adam:\n"
        "    x = torch.ones(1, requires_grad=True); o = kind([x]); x.sum().backward()\n"
        "    o.step(); o.zero_grad(); o.load_state_dict(o.state_dict())\n"
        "    print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
