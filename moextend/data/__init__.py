"""Reading tables, images and conversations from files, folders and the hub."""
