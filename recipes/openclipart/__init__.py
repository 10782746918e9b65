"""The clip-art data set of the classification half: where it comes from, how it is built, and its image backbone."""
