"""Small things that several rooms use: checks, time, provenance, files, statistics."""
