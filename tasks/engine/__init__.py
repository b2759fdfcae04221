"""The only helpers that know doit: configuration, steps, reporter, run lock."""
