"""Workers die by the hundred under load, brokers fail, and every call and request is accounted for."""
