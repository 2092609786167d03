"""Parts that every process needs: tasks, files and locks, metrics, sockets, end with the parent."""
