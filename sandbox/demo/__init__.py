"""The demo fleet: 28 agents through a real RabbitMQ, a real Redis and real HTTP; `make demo`."""
