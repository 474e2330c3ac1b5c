"""BEiT v2's visual tokenizer: one of 8192 codes per patch of an image. Encoder side only.

    rows = LN(ViT(x));  z = W₂ tanh(W₁ rows);  code = argmin_k ‖z/‖z‖ − e_k‖²

Source: Peng et al., "BEiT v2", arXiv 2208.06366; key names of github.com/microsoft/unilm, beit2. No
published file was available: names are checked strictly, codes of a published image are not.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignrec_recbole.encoders.beit3.tensor_files import check_tensors, read_pickle
from alignrec_recbole.errors import AlignRecError, FeatureError

EPS = 1e-6
MAX_LAYERS = 128
UNUSED = ("loss", "teacher", "scaling", "decoder.", "decode_task_layer.")
STATISTICS = ("cluster_size", "embed_avg", "initted")  # of the codebook's training


class Block(nn.Module):
    """A plain pre-norm block; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = nn.ParameterDict(
            {
                "q_bias": nn.Parameter(torch.zeros(width)),
                "v_bias": nn.Parameter(torch.zeros(width)),
            }
        )
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, d] → [B, n, d]."""
        batch, n, width = x.shape
        q_bias, v_bias = self.attn["q_bias"], self.attn["v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        qkv = F.linear(self.norm1(x), self.qkv.weight, bias)
        q, k, v = qkv.view(batch, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, n, width)
        x = x + self.proj(a)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisualTokenizer(nn.Module):
    """Images [B, 3, S, S], normalised to −1 … 1, to codes int64 [B, patches]."""

    def __init__(
        self, width: int, layers: int, patches: int, patch: int, codes: int, code_width: int
    ) -> None:
        super().__init__()
        self.patches, self.codes = patches, codes
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, width))
        self.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.ModuleList(Block(width, max(1, width // 64)) for _ in range(layers))
        self.fc_norm = nn.LayerNorm(width, EPS)
        self.task = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, code_width))
        self.codebook = nn.Parameter(torch.zeros(codes, code_width))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """BEiT v2 scales pixels to −1 … 1 as BEiT-3 does, so the input is the same."""
        x = self.proj(image.float()).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        z = F.normalize(self.task(self.fc_norm(x[:, 1:])), dim=-1)
        distance = self.codebook.square().sum(-1) - 2 * z @ self.codebook.T
        return distance.argmin(-1)


def load_visual_tokenizer(path: Path) -> VisualTokenizer:
    """Read a vqkd_encoder_*.pth strictly, executing nothing.

    Raises:
        FeatureError: it is missing, damaged or has other tensors.
    """
    path = Path(path)
    try:
        state = {
            _own_name(name): value
            for name, value in read_pickle(path).items()
            if not name.startswith(UNUSED) and not name.endswith(STATISTICS)
        }
        check_tensors(path, state)
        state = {name: value.float() for name, value in state.items()}
        width, _, patch, _ = state["proj.weight"].shape
        layers = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))
        if layers > MAX_LAYERS:
            raise ValueError(f"{layers} layers")
        codes, code_width = state["codebook"].shape
        patches = state["pos_embed"].shape[1] - 1
        with torch.device("meta"):  # sizes of different tensors may be those of a huge model
            out = VisualTokenizer(width, layers, patches, patch, codes, code_width)
        out.load_state_dict(state, strict=True, assign=True)
    except AlignRecError as error:
        raise _unusable(path, error.found or error.problem) from error
    except Exception as error:  # names and shapes each have their own
        first = (str(error).strip() or "-").splitlines()[0][:200]
        raise _unusable(path, f"{type(error).__name__}: {first}") from error
    return out.eval().requires_grad_(False)


def _unusable(path: Path, found: str) -> FeatureError:
    return FeatureError(
        f"{path.name} is not a visual tokenizer of BEiT v2.",
        found=found,
        expected="a vqkd_encoder_*.pth",
    )


def _own_name(name: str) -> str:
    name = name.removeprefix("encoder.").replace("patch_embed.proj", "proj")
    name = name.replace("encode_task_layer.", "task.").replace(
        "quantize.embedding.weight", "codebook"
    )
    for inner in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        name = name.replace(f".{inner}.", f".{inner.partition('.')[2]}.")
    return name
