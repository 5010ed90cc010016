"""The evaluation protocol: many runs of many scenarios into numbers that can be published.

What of it is ours and what Agarwal et al. (2021) and Gorsane et al. (2022) laid down is in docs/protocol.md.
"""
