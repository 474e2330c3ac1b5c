"""BEiT-3 for items: architecture, weights, tokenizer, extraction and content pre-training.

Paper: Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and
Vision-Language Tasks", CVPR 2023, arXiv 2208.10442. The released base and large models differ from
the paper's: every projection has one copy per modality, and there is no vision-language expert.
"""
