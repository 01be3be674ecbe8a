"""Attribution methods that point to the decision boundary."""
