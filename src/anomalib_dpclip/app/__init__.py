"""The page to try the model on photos, and what it shows of one."""
