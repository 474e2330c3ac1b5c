"""Which edges there are: user-item graphs, item-item graphs, cached neighbours."""
