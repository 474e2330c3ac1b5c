"""The trainer, its batches and its memory estimate."""
