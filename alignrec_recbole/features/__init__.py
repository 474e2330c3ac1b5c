"""Feature files: manifest, alignment with item ids, masking, controls."""
