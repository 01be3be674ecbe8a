"""What everything stands on: errors, statuses, domains, heads, results."""
