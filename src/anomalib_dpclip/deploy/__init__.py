"""Exported files: torch, ONNX, OpenVINO, INT8, and the thresholds in them."""
