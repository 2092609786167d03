"""How much the data path costs, holds and delays: `make bench` measures it, docs/performance.md
says how.
"""
