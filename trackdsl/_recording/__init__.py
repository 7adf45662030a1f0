"""How values are recorded: parameters, metrics, files, tables, images, models, datasets."""
