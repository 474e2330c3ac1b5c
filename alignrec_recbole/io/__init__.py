"""Files and formats; nothing here knows a recommender."""
