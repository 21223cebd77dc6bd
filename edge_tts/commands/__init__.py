"""The verbs of ``edge-reason``, one module each: parse options, call the library, show the result.

May import everything else; nothing imports this.
"""
