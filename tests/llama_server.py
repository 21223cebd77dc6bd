"""llama-cpp-python's server, which loads its model as the engine does: ``python llama_server.py --model ...``."""

from __future__ import annotations

from llama_cpp.server.__main__ import main

from edge_tts.bench.engine import sound_kernels

if __name__ == "__main__":
    with sound_kernels():
        main()
