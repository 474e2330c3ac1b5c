"""AlignRec and multimodal baselines as RecBole models."""

__version__ = "0.1.0"
