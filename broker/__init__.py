"""The shared state in Redis, and the consuming side of RabbitMQ."""
