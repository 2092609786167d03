"""The Docker product: prototypes in containers that reach nothing but their two listeners."""
