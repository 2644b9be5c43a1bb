"""A file for whoever helps, in which nobody can be found: `bundle`."""
