"""What a user gives to a report: images, labels, names, a model and its weights."""
