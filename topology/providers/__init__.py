"""The providers: the catalogue of what they offer, and the translation to and from their wire protocols."""
