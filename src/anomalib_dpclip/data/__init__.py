"""Data modules: JSON lines, procedural surfaces, and MVTec AD under its usual name."""
