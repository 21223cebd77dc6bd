"""Questions as users give them: what may be asked, files of questions, and the results files written for them.

Imports ``answers``, ``files`` and ``core``.
"""
