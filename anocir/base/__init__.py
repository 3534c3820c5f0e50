"""What both sides stand on: log, JSON, hooks, the loading of modules."""
