"""Workers that die or freeze exactly where they are told to; `nursery.py` is how a test starts them."""
