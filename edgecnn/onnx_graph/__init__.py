"""Reads an .onnx file as a torch network: the file, its operators, the fx graph that they build."""
