"""The HTTP gateway: speaks OpenAI's protocol to any client, and publishes like any agent."""
