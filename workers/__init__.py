"""The processes between the queues: fronts that admit requests, backends that call providers."""
