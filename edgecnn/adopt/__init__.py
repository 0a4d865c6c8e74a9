"""Somebody else's network taken in: a run folder as `edgecnn finetune` writes it, from a weights file or an .onnx file.

`graph` and below turn an .onnx file into a torch network and know nothing of the rest of edgecnn; `folder` writes the
run folder.
"""
