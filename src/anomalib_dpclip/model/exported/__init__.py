"""Exported ONNX and OpenVINO files: what goes into them, what they say of themselves, and thresholds that move afterwards."""
