"""Label sets written by a language model: Debian's packages with their tags, options and report."""
