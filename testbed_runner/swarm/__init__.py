"""The Docker Swarm product: prototypes as services, on machines that one swarm joins."""
