"""Images of prototypes: archives that were pushed, checked and kept, and images of registries."""
