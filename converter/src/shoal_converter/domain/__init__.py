"""Pure decisions about arrays: is the converted model equal to its source, which rows show it, what matters to it."""
