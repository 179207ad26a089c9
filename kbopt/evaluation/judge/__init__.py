"""The trusted process of one task: the reference, the secret inputs, and the order of the verdict."""
