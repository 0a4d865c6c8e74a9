"""One file an engine: how its int8 file is written, `QUANTIZER`."""
