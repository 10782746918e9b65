"""One renderer per medium: each shows the parts of a [`Report`] in its own way, for every kind of document."""
