"""The OpenAI-compatible HTTP server around a solver.

``serve`` listens and stops, ``protocol`` and ``guard`` bound what a client may do, ``app`` has the routes, ``schema``
reads a request, ``answering`` runs its searches, ``reply`` and ``stream`` write the answer. Imports ``solver`` and the
rooms below it; imported by ``commands.serve`` and ``bench``.
"""
