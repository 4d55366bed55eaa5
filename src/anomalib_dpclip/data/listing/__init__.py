"""Lists of labelled images: the JSON-lines format, what writes it from folders and data modules, and what checks it."""
