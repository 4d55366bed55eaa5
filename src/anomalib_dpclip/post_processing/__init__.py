"""From raw maps and scores to decisions: score fusion, normalisation, thresholds and what they guarantee."""
