"""Pictures: heat maps, boxes, contact sheets."""
