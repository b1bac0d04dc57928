"""What classes, options and configs there are, read from the source: nothing of it is imported, torch least of all."""
