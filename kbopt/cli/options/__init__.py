"""The options that several commands share, by what they set; `parsed` says what they come to.

Defaults are read from the configuration's own dataclasses, so that each stands in one place.
"""
