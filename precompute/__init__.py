"""The offline jobs: parse, call lfp, write. `python -m precompute --help` lists them."""
