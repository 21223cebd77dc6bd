"""The OpenAI-compatible HTTP server around a solver.

``serve`` listens and stops, ``protocol`` and ``guard`` bound what a client may do, ``app`` has the routes, ``schema``
and ``understanding`` read a request, ``answering`` runs its searches, ``reply``, ``completions``, ``responses`` and
``stream`` write the answer. ``page`` and ``mathematics`` serve the page in ``web``. Imports ``solver`` and the rooms
below it; imported by ``commands.serve`` and ``bench``.
"""
