"""Assembly: from a plain configuration to the parts of a run and of its workers."""
