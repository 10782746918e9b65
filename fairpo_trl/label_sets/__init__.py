"""Label sets as text: a language model writes the labels of an item, and the rare ones are privileged."""
